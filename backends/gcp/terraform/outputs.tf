output "url" {
  value       = google_cloudfunctions2_function.worker.url
  description = "Where the function answers."
}

output "service_account" {
  value       = google_service_account.workers.email
  description = "What workers run as."
}
