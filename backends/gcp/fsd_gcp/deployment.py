"""A deployment: what was made, and the names of its resources, all of which follow from a few facts.

The function has it as the environment variable ``FSD_GCP_DEPLOYMENT``, where workers and clients find it.
"""

from __future__ import annotations

from fsdcore.contracts.backend import DeploymentFacts

VARIABLE = "FSD_GCP_DEPLOYMENT"
LABEL = "fsd-deployment"
# A function is of a region, and all else of a project: two deployments of one name would share it.
REGION_LABEL = "fsd-region"


def function_name(name: str, project: str, region: str) -> str:
    """The full name of a deployment's function."""
    return f"projects/{project}/locations/{region}/functions/fsd-{name}"


class Deployment(DeploymentFacts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each lane has a topic and a subscription for every rank. The fields are those of `GcpSettings`, and `workers`."""

    command = "fsd deploy gcp"

    project: str
    cpu: str
    python: str
    ack_deadline: int
    run_days: int
    storage_endpoint: str = ""
    pubsub_endpoint: str = ""
    functions_endpoint: str = ""

    # Names

    @property
    def stem(self) -> str:
        """What the names of all resources begin with."""
        return f"fsd-{self.name}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels of all resources that can have some."""
        return {LABEL: self.name, REGION_LABEL: self.region}

    @property
    def parent(self) -> str:
        """Project and region, under which the APIs of functions, images and Cloud Run name their resources."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def function(self) -> str:
        """The function whose instances are the workers."""
        return function_name(self.name, self.project, self.region)

    @property
    def url(self) -> str:
        """Where the function answers, as far as its name tells."""
        if self.functions_endpoint:
            return f"{self.functions_endpoint}/run/{self.project}/{self.region}/{self.stem}"
        return f"https://{self.region}-{self.project}.cloudfunctions.net/{self.stem}"

    @property
    def bucket(self) -> str:
        """Names of buckets are shared by the whole world, so the project is a part of it."""
        return f"{self.stem}-{self.project}"

    @property
    def service_account(self) -> str:
        """The account that workers run as."""
        return f"{self.stem}@{self.project}.iam.gserviceaccount.com"

    @property
    def build_account(self) -> str:
        """The account that builds the function, unless the settings bring another.

        It begins otherwise than those of workers, so that no deployment has one that is another's.
        """
        return f"fsdb-{self.name}@{self.project}.iam.gserviceaccount.com"

    def topic(self, lane: int, rank: int) -> str:
        """The topic to which others publish what is for `rank` in runs on `lane`."""
        return f"projects/{self.project}/topics/{self.stem}-{lane}-{rank}"

    def subscription(self, lane: int, rank: int) -> str:
        """The subscription, of the topic of the same lane and rank, that `rank` pulls from."""
        return f"projects/{self.project}/subscriptions/{self.stem}-{lane}-{rank}"

    def endpoints(self) -> list[tuple[int, int]]:
        """(lane, rank) of every topic and subscription."""
        return [(lane, rank) for lane in range(self.lanes) for rank in range(self.workers)]
