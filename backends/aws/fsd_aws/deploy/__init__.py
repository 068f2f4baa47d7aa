"""Making and removing a deployment: the client's side only, no part of the package that workers run."""

from fsd_aws.deploy.provisioner import AwsProvisioner

__all__ = ["AwsProvisioner"]
