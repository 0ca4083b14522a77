"""The template's alarms: which metric each one watches, and whether it tells of damage."""

from __future__ import annotations

# (namespace, metric, statistic) by alarm; of an expression, what it is made of.
PROMISES = {
    "NotPollingAlarm": ("AWS/Lambda", "PolledEventCount", "SampleCount"),
    "LateAlarm": ("AWS/Lambda", "IteratorAge", "Maximum"),
    "ErrorsAlarm": ("AWS/Lambda", "Errors", "Sum"),
    "ThrottlesAlarm": ("AWS/Lambda", "Throttles", "Sum"),
    "DroppedAlarm": ("AWS/Lambda", "DroppedEventCount", "Sum"),
    "GivenUpAlarm": ("AWS/Lambda", "OnFailureDestinationDeliveredEventCount", "Sum"),
    "DeliveryAlarm": ("AWS/Lambda", "DestinationDeliveryFailures", "Sum"),
    "RejectsAlarm": ("asyncsync", "Rejected", "Sum"),
    "EvictionsAlarm": ("AWS/ElastiCache", "Evictions", "Sum"),
    "ReplicaEvictionsAlarm": ("AWS/ElastiCache", "Evictions", "Sum"),
    "CacheFullAlarm": ("AWS/ElastiCache", "BytesUsedForCache", "Maximum"),
    "CacheThrottlesAlarm": ("AWS/ElastiCache", "ThrottledCmds", "Sum"),
    "SignInsAlarm": ("AWS/ElastiCache", "IamAuthenticationThrottling", "Sum"),
    "AuditAlarm": ("asyncsync", "AuditDifferences", "Sum"),
    "NoAuditAlarm": ("asyncsync", "AuditDifferences", "SampleCount"),
}

# What has happened has happened: a person has to look, whatever the next minute brings.
DAMAGE = {
    *("DroppedAlarm", "GivenUpAlarm", "DeliveryAlarm", "RejectsAlarm"),
    *("EvictionsAlarm", "ReplicaEvictionsAlarm", "AuditAlarm"),
}

# Those for which no data is a breach.
BREACHING = {"NotPollingAlarm", "NoAuditAlarm"}

# Those that only some stacks have.
OF_A_NEW_CACHE = {"EvictionsAlarm", "CacheFullAlarm", "SignInsAlarm"}
OF_SERVERLESS = {"CacheThrottlesAlarm"}
OF_A_REPLICA = {"ReplicaEvictionsAlarm"}
OF_AN_AUDIT = {"AuditAlarm", "NoAuditAlarm"}
