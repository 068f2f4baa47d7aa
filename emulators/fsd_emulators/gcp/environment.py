"""What clients must be told to find the servers of this machine."""

from __future__ import annotations

from fsd_emulators.gcp.functions import FunctionsServer
from fsd_emulators.gcp.pubsub import PubsubServer
from fsd_emulators.gcp.storage import StorageServer

PROJECT = "local-project"
REGION = "europe-west1"


def environment(storage: StorageServer, pubsub: PubsubServer, functions: FunctionsServer) -> dict[str, str]:
    """Variables for the backend (``FSD_GCP_``) and, for other programs, those that Google's clients know."""
    return {
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "STORAGE_EMULATOR_HOST": storage.url,
        "PUBSUB_EMULATOR_HOST": pubsub.target,
        "FSD_GCP_PROJECT": PROJECT,
        "FSD_GCP_REGION": REGION,
        "FSD_GCP_STORAGE_ENDPOINT": storage.url,
        "FSD_GCP_PUBSUB_ENDPOINT": pubsub.target,
        "FSD_GCP_FUNCTIONS_ENDPOINT": functions.url,
    }
