"""asyncsync beside your CDK app: the released template as part of a stack.

An existing table and cache; upload the release's zips first (docs/deploy.md). Run with
`ASYNCSYNC_RELEASE=dist/asyncsync-0.1.0 cdk synth`. Every parameter is in template.yaml.
"""

from __future__ import annotations

import os

from aws_cdk import App, CfnOutput, DefaultStackSynthesizer, Stack
from aws_cdk.cloudformation_include import CfnInclude
from constructs import Construct


class MirrorStack(Stack):
    """A copy of one table in one cache."""

    def __init__(
        self, scope: Construct, name: str, *, release: str, parameters: dict[str, str]
    ) -> None:
        super().__init__(scope, name, synthesizer=DefaultStackSynthesizer())
        self.included = CfnInclude(
            self, "Asyncsync", template_file=f"{release}/template.json", parameters=parameters
        )
        mirror = self.included.get_resource("Mirror")
        CfnOutput(self, "CheckThis", value=mirror.ref)


def build(release: str) -> App:
    """Return the app with one stack for the table Orders."""
    app = App()
    MirrorStack(
        app,
        "orders-mirror",
        release=release,
        parameters={
            "CodeBucket": "my-releases",
            "TableStreamArn": "arn:aws:dynamodb:eu-west-1:111122223333:table/Orders/stream/"
            "2026-01-01T00:00:00.000",
            "KeyPrefix": "Orders",
            "Cache": "existing",
            "RedisUrl": "rediss://asyncsync@orders.example:6379",
            "RedisCluster": "true",
            "RedisIamCacheArn": "arn:aws:elasticache:eu-west-1:111122223333:"
            "serverlesscache:orders",
            "Network": "existing",
            "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
            "SecurityGroupIds": "sg-0123456789abcdef0",
        },
    )
    return app


if __name__ == "__main__":
    build(os.environ["ASYNCSYNC_RELEASE"]).synth()
