"""The mirror behind Powertools: its logger and its metrics around asyncsync's own handler.

Add this file and aws-lambda-powertools to the bundle, and make app.lambda_handler the function's
handler. The settings are environment variables, as without Powertools.
"""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from asyncsync.handler import lambda_handler as mirror_batch

logger = Logger(service="orders-mirror")
metrics = Metrics(namespace="orders", service="mirror")


@logger.inject_lambda_context
@metrics.log_metrics
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Mirror a batch. Lambda needs the answer as it is: it names what is sent again."""
    answer = mirror_batch(event, context)
    failures = len(answer["batchItemFailures"])
    if failures:
        logger.warning("keys failed; Lambda sends their records again", keys=failures)
    metrics.add_metric(name="FailedKeys", unit=MetricUnit.Count, value=failures)
    return answer
