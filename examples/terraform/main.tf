# asyncsync beside your Terraform: the released template as one stack, for an existing table and
# cache. Upload the release's zips first (docs/deploy.md). Every parameter is in template.yaml.
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "release" {
  description = "The release's folder"
  type        = string
}

variable "code_bucket" {
  description = "The bucket with the release's zips, in the stack's Region"
  type        = string
}

variable "table_name" {
  type = string
}

variable "redis_url" {
  description = "rediss://user@host:6379, without a password"
  type        = string
}

variable "redis_cluster" {
  description = "Whether it is in cluster mode, as a serverless cache is"
  type        = bool
  default     = true
}

variable "redis_iam_cache_arn" {
  description = "The serverless cache or replication group that the user signs in to"
  type        = string
}

variable "subnet_ids" {
  type = list(string)
}

variable "security_group_ids" {
  type = list(string)
}

data "aws_dynamodb_table" "source" {
  name = var.table_name

  lifecycle {
    postcondition {
      condition     = contains(["NEW_IMAGE", "NEW_AND_OLD_IMAGES"], self.stream_view_type)
      error_message = "The table's stream must be on, with new images."
    }
  }
}

# CloudFormation reads a template of this size only from a bucket.
resource "aws_s3_object" "template" {
  bucket = var.code_bucket
  key    = "asyncsync/${filesha256("${var.release}/template.json")}.json"
  source = "${var.release}/template.json"
}

resource "aws_cloudformation_stack" "asyncsync" {
  name         = "asyncsync-${var.table_name}"
  template_url = "https://${var.code_bucket}.s3.${data.aws_region.here.name}.amazonaws.com/${aws_s3_object.template.key}"
  capabilities = ["CAPABILITY_IAM"]

  parameters = {
    CodeBucket       = var.code_bucket
    TableStreamArn   = data.aws_dynamodb_table.source.stream_arn
    KeyPrefix        = var.table_name
    Cache            = "existing"
    RedisUrl         = var.redis_url
    RedisCluster     = tostring(var.redis_cluster)
    RedisIamCacheArn = var.redis_iam_cache_arn
    Network          = "existing"
    SubnetIds        = join(",", var.subnet_ids)
    SecurityGroupIds = join(",", var.security_group_ids)
  }
}

data "aws_region" "here" {}

output "mirror_function" {
  description = "What asyncsync check takes as --function"
  value       = aws_cloudformation_stack.asyncsync.outputs["MirrorFunction"]
}

output "operations_function" {
  value = aws_cloudformation_stack.asyncsync.outputs["OperationsFunction"]
}
