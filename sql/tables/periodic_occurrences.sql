-- One row is one occurrence of a schedule that was enqueued: the promise that it happens once.
create table periodic_occurrences (
    name text not null,
    scheduled_at timestamptz not null,
    result_id bigint,
    primary key (name, scheduled_at)
);

comment on table periodic_occurrences is 'Occurrences already enqueued; the primary key makes each happen at most once.';
comment on column periodic_occurrences.result_id is 'The task that was enqueued; null when the overlap policy left it out.';
