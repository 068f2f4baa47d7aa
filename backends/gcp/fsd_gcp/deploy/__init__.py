"""What makes, looks at and removes a deployment."""
