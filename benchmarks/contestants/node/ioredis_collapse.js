// ioredis used well: one client, the latest record of each key, one pipeline, every reply looked at.
"use strict";

const { Redis } = require("ioredis");

const client = new Redis({
  host: process.env.REDIS_HOST,
  port: Number(process.env.REDIS_PORT),
  db: Number(process.env.REDIS_DATABASE),
});

exports.handler = async (event) => {
  const latest = new Map();
  for (const { dynamodb } of event.Records) {
    const number = dynamodb.Keys.Number.N;
    const sequenceNumber = BigInt(dynamodb.SequenceNumber);
    const held = latest.get(number);
    if (held === undefined || sequenceNumber > held.sequenceNumber) {
      latest.set(number, { sequenceNumber, image: dynamodb.NewImage });
    }
  }
  const pipeline = client.pipeline();
  for (const [number, { image }] of latest) {
    if (image === undefined) {
      pipeline.del(`Players:${number}`);
    } else {
      pipeline.set(`Players:${number}`, JSON.stringify(image));
    }
  }
  for (const [error] of await pipeline.exec()) {
    if (error) throw error;
  }
  return { batchItemFailures: [] };
};
