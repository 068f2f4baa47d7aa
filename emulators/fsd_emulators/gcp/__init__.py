"""Google Cloud on this machine: Cloud Storage, Pub/Sub and Cloud Functions for tests and for trying things out."""
