# Every role but those of the builder is given on one resource, none on the project. fsd deploy gcp --dry-run tells what each is for.

resource "google_storage_bucket_iam_member" "bucket" {
  for_each = local.members
  bucket   = google_storage_bucket.objects.name
  role     = "roles/storage.objectUser"
  member   = each.value
}

resource "google_pubsub_topic_iam_member" "topic" {
  for_each = local.places
  project  = var.project
  topic    = google_pubsub_topic.rank[each.value[0]].name
  role     = "roles/pubsub.publisher"
  member   = each.value[1]
}

resource "google_pubsub_subscription_iam_member" "subscription" {
  for_each     = local.places
  project      = var.project
  subscription = google_pubsub_subscription.rank[each.value[0]].name
  role         = "roles/pubsub.subscriber"
  member       = each.value[1]
}

resource "google_service_account_iam_member" "account" {
  for_each           = var.callers
  service_account_id = google_service_account.workers.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = each.value
}

resource "google_cloudfunctions2_function_iam_member" "function" {
  for_each       = var.callers
  project        = var.project
  location       = var.region
  cloud_function = google_cloudfunctions2_function.worker.name
  role           = "roles/cloudfunctions.viewer"
  member         = each.value
}

# The function is a service of Cloud Run of the same name.
resource "google_cloud_run_v2_service_iam_member" "service" {
  for_each = local.invokers
  project  = var.project
  location = var.region
  name     = google_cloudfunctions2_function.worker.name
  role     = "roles/run.invoker"
  member   = each.value
}

resource "google_project_iam_member" "builder" {
  for_each = var.build_account == "" ? local.building : []
  project  = var.project
  role     = each.value
  member   = "serviceAccount:${google_service_account.builder[0].email}"

  depends_on = [google_project_service.api]
}
