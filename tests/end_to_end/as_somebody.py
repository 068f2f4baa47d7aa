"""``python as_somebody.py``: run a small network on a deployment as whoever the environment says that one is.

Google's token services have addresses that no variable changes, so those are led to the local server here.
"""

from __future__ import annotations

import os

import google.auth.iam
import google.oauth2.credentials

import fsdcore as fsd
from fsdcore.network.verify import verify
from fsdcore.testing import random_inputs, random_network

_SERVER = os.environ["FSD_GCP_FUNCTIONS_ENDPOINT"]
google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT = f"{_SERVER}/token"
google.auth.iam._IAM_IDTOKEN_ENDPOINT = f"{_SERVER}/v1/projects/-/serviceAccounts/{{}}:generateIdToken"

network, inputs = random_network((32, 48, 32)), random_inputs(20, 32)
with fsd.connect("gcp", workers=3, method="block", deadline_seconds=30.0, run_seconds=60.0) as session:
    assert verify(network, inputs, session.load(network).run(inputs).outputs).right
