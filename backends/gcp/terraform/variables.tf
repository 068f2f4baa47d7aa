# The settings of the table [gcp], with the same names and defaults, and what a deploy is told besides.

variable "name" {
  type        = string
  default     = "fsd"
  description = "Of the deployment; 2 to 24 lower-case letters, digits and inner hyphens, a letter first."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*[a-z0-9]$", var.name)) && length(var.name) <= 24
    error_message = "The name must be 2 to 24 lower-case letters, digits and inner hyphens, a letter first."
  }
}

variable "project" {
  type        = string
  description = "Id of the project."
}

variable "region" {
  type        = string
  description = "Such as europe-west4."
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "The region must be the name of one, such as europe-west4."
  }
}

variable "workers" {
  type        = number
  description = "The most workers of a run: what fsd deploy has as --max-workers."
}

variable "source_zip" {
  type        = string
  description = "The source of the function, made by: python -m fsd_gcp.deploy.package"
}

variable "source_digest" {
  type        = string
  description = "The digest of the source, told by the same command."
}

variable "python" {
  type        = string
  description = "Version of the function's Python, such as 3.12; the one that the source was made for."
}

variable "memory_mb" {
  type        = number
  default     = 2048
  description = "Of the function."
}

variable "timeout_seconds" {
  type        = number
  default     = 900
  description = "Of the function."
}

variable "cpu" {
  type        = string
  default     = ""
  description = "Of the function, such as 1 or 2; empty for what comes with the memory."
}

variable "lanes" {
  type        = number
  default     = 1
  description = "How many runs on queues may be under way at once."
}

variable "ack_deadline" {
  type        = number
  default     = 60
  description = "Seconds until a message that was pulled and not acknowledged comes again."
}

variable "publishes_in_flight" {
  type        = number
  default     = 8
  description = "How many publishes a worker has under way at once."
}

variable "run_days" {
  type        = number
  default     = 1
  description = "After how many days what runs left in the bucket is removed."
}

variable "callers" {
  type        = set(string)
  default     = []
  description = "Who may run, as members of policies, such as user:ann@example.com."
}

variable "build_account" {
  type        = string
  default     = ""
  description = "E-mail of the service account that builds the function; empty for one that is made here."
}
