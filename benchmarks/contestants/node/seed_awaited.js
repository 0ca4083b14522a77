// The algorithm of 2017 made honest: one client for all invocations, the answer after the last
// reply. Still one SET or DEL per record, in order of arrival.
"use strict";

const redis = require("redis");

const client = redis.createClient(process.env.REDIS_PORT, process.env.REDIS_HOST, {
  db: process.env.REDIS_DATABASE,
  no_ready_check: true,
});

const written = (record) =>
  new Promise((resolve, reject) => {
    const done = (error) => (error ? reject(error) : resolve());
    const name = `Players:${record.dynamodb.Keys.Number.N}`;
    if (record.eventName === "REMOVE") {
      client.del(name, done);
    } else {
      client.set(name, JSON.stringify(record.dynamodb.NewImage), done);
    }
  });

exports.handler = async (event) => {
  await Promise.all(event.Records.map(written));
  return { batchItemFailures: [] };
};
