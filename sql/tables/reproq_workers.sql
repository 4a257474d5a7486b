-- One row is one worker process, by its name.
create table reproq_workers (
    worker_id text primary key,
    hostname text not null,
    concurrency integer not null,
    queues jsonb not null default '[]',
    started_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    version text,
    incarnation uuid,
    allowed_modules jsonb
);

comment on table reproq_workers is 'Workers seen lately. For people to read; leases do not depend on it.';
comment on column reproq_workers.allowed_modules is 'Module prefixes of the tasks that it runs; null when unknown. Only reproq_explain reads it.';
comment on column reproq_workers.incarnation is 'The latest start of the process under this name; null for a Go worker.';
comment on column reproq_workers.last_seen_at is 'Latest start or heartbeat.';
comment on column reproq_workers.concurrency is 'Tasks it runs at a time.';
comment on column reproq_workers.queues is 'Array of queue names, in the order it was given.';
