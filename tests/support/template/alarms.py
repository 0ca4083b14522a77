"""The template's alarms: which metric each one watches."""

from __future__ import annotations

# (namespace, metric, statistic) by alarm
PROMISES = {
    "LateAlarm": ("AWS/Lambda", "IteratorAge", "Maximum"),
    "ErrorsAlarm": ("AWS/Lambda", "Errors", "Sum"),
    "ThrottlesAlarm": ("AWS/Lambda", "Throttles", "Sum"),
    "DroppedAlarm": ("AWS/Lambda", "DroppedEventCount", "Sum"),
    "GivenUpAlarm": ("AWS/Lambda", "OnFailureDestinationDeliveredEventCount", "Sum"),
    "DeliveryAlarm": ("AWS/Lambda", "DestinationDeliveryFailures", "Sum"),
    "RejectsAlarm": ("asyncsync", "Rejected", "Sum"),
    "EvictionsAlarm": ("AWS/ElastiCache", "Evictions", "Sum"),
    "ReplicaEvictionsAlarm": ("AWS/ElastiCache", "Evictions", "Sum"),
}
