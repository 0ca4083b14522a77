// The algorithm of 2017 as it was published: a client for each invocation, one SET or DEL per
// record, and the answer before any of them is sent. Its log of every item is left out.
"use strict";

const redis = require("redis");

exports.handler = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = false;
  const client = redis.createClient(process.env.REDIS_PORT, process.env.REDIS_HOST, {
    db: process.env.REDIS_DATABASE,
    no_ready_check: true,
  });
  const done = (error) => {
    if (error) callback(error);
  };
  event.Records.forEach((record) => {
    const name = `Players:${record.dynamodb.Keys.Number.N}`;
    if (record.eventName === "REMOVE") {
      client.del(name, done);
    } else {
      client.set(name, JSON.stringify(record.dynamodb.NewImage), done);
    }
  });
  callback(null, `Successfully processed ${event.Records.length} records.`);
};
