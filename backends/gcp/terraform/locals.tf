locals {
  stem   = "fsd-${var.name}"
  labels = { fsd-deployment = var.name, fsd-region = var.region }

  # LANE-RANK of every topic and subscription.
  endpoints = toset(flatten([for lane in range(var.lanes) : [for rank in range(var.workers) : "${lane}-${rank}"]]))

  # What workers and clients read: the same as the fields of the class Deployment.
  deployment = {
    name                = var.name
    project             = var.project
    region              = var.region
    workers             = var.workers
    lanes               = var.lanes
    memory_mb           = var.memory_mb
    timeout_seconds     = var.timeout_seconds
    cpu                 = var.cpu
    python              = var.python
    ack_deadline        = var.ack_deadline
    publishes_in_flight = var.publishes_in_flight
    run_days            = var.run_days
  }

  builder = var.build_account == "" ? google_service_account.builder[0].id : "projects/${var.project}/serviceAccounts/${var.build_account}"
  # On the project, since what they are for is made by the service.
  building = toset(["roles/logging.logWriter", "roles/artifactregistry.writer", "roles/storage.objectViewer"])
  apis = toset([for name in [
    "cloudfunctions", "run", "cloudbuild", "artifactregistry", "pubsub", "storage", "iam", "iamcredentials",
    "cloudresourcemanager"
  ] : "${name}.googleapis.com"])

  service_account = "serviceAccount:${google_service_account.workers.email}"
  # By a key that is known before anything is made.
  members = merge({ for member in var.callers : member => member }, { workers = local.service_account })
  # A person's token is none that a function takes; of the others some may be service accounts.
  starters = { for member in var.callers : member => member if !startswith(member, "user:") }
  invokers = merge(local.starters, { workers = local.service_account })
  # Every topic or subscription, and who has a role on it.
  places = merge([
    for endpoint in local.endpoints : { for key, member in local.members : "${endpoint} ${key}" => [endpoint, member] }
  ]...)
}
