# What fsd deploy gcp makes, for those who keep their resources by Terraform. Nothing can be made before its API is enabled.

resource "google_service_account" "workers" {
  project      = var.project
  account_id   = local.stem
  display_name = "fsd ${var.name}"
  description  = "workers of fsd deployment ${var.name} in ${var.region}"
  depends_on   = [google_project_service.api]
}

# What builds the function, with roles for that alone: a new project's default account may do nothing.
resource "google_service_account" "builder" {
  count        = var.build_account == "" ? 1 : 0
  project      = var.project
  account_id   = "fsdb-${var.name}"
  display_name = "fsd ${var.name}"
  description  = "builds of fsd deployment ${var.name} in ${var.region}"
  depends_on   = [google_project_service.api]
}

resource "google_storage_bucket" "objects" {
  project                     = var.project
  name                        = "${local.stem}-${var.project}"
  location                    = var.region
  labels                      = local.labels
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  lifecycle_rule {
    condition {
      age            = var.run_days
      matches_prefix = ["runs/"]
    }
    action {
      type = "Delete"
    }
  }

  # What was deleted is gone: by default it would be kept, and billed, for a week.
  soft_delete_policy {
    retention_duration_seconds = 0
  }

  depends_on = [google_project_service.api]
}

resource "google_pubsub_topic" "rank" {
  for_each = local.endpoints
  project  = var.project
  name     = "${local.stem}-${each.key}"
  labels   = local.labels

  depends_on = [google_project_service.api]
}

# No filter: Pub/Sub bills what a filter drops as if it had been delivered.
resource "google_pubsub_subscription" "rank" {
  for_each                   = local.endpoints
  project                    = var.project
  name                       = "${local.stem}-${each.key}"
  topic                      = google_pubsub_topic.rank[each.key].id
  labels                     = local.labels
  ack_deadline_seconds       = var.ack_deadline
  message_retention_duration = "7200s"

  # Never removed for being idle.
  expiration_policy {
    ttl = ""
  }
}

resource "google_storage_bucket_object" "source" {
  bucket = google_storage_bucket.objects.name
  name   = "source/${var.source_digest}.zip"
  source = var.source_zip
}

resource "google_cloudfunctions2_function" "worker" {
  project  = var.project
  name     = local.stem
  location = var.region
  labels   = merge(local.labels, { fsd-source = substr(lower(var.source_digest), 0, 40) })

  build_config {
    runtime     = "python${replace(var.python, ".", "")}"
    entry_point = "worker"
    # Its roles are there before the build.
    service_account = local.builder
    source {
      storage_source {
        bucket = google_storage_bucket.objects.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    available_memory                 = "${var.memory_mb}Mi"
    available_cpu                    = var.cpu == "" ? null : var.cpu
    timeout_seconds                  = var.timeout_seconds
    max_instance_count               = var.workers * var.lanes
    max_instance_request_concurrency = 1
    environment_variables            = { FSD_GCP_DEPLOYMENT = jsonencode(local.deployment) }
    ingress_settings                 = "ALLOW_ALL"
    service_account_email            = google_service_account.workers.email
  }

  depends_on = [google_project_iam_member.builder, google_project_service.api]
}

# All that a deployment or a run calls; they stay enabled when the deployment goes.
resource "google_project_service" "api" {
  for_each           = local.apis
  project            = var.project
  service            = each.value
  disable_on_destroy = false
}
