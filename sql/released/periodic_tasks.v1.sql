-- One row is one schedule.
create table periodic_tasks (
    name text primary key,
    cron_expr text not null,
    task_path text not null,
    payload_json jsonb not null default '{}',
    queue_name text not null default 'default',
    priority integer not null default 0,
    max_attempts integer not null default 3,
    concurrency_key text,
    concurrency_limit integer not null default 0,
    last_run_at timestamptz,
    next_run_at timestamptz not null,
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    time_zone text not null default 'UTC',
    misfire text not null default 'one',
    overlap text not null default 'allow',
    planned boolean not null default false,
    constraint periodic_tasks_misfire_known check (misfire in ('skip', 'one', 'all')),
    constraint periodic_tasks_overlap_known check (overlap in ('allow', 'skip', 'queue_one'))
);

comment on table periodic_tasks is 'Schedules, written by Django, SQL or the command line.';
comment on column periodic_tasks.time_zone is 'IANA zone in which cron_expr is read.';
comment on column periodic_tasks.misfire is 'What to do with missed occurrences: skip, one, all (bounded).';
comment on column periodic_tasks.overlap is 'What to do while the last occurrence still runs: allow, skip, queue_one.';
comment on column periodic_tasks.planned is 'False until a beat has computed next_run_at from cron_expr.';
