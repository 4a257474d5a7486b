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
    options_json jsonb not null default '{}',
    constraint periodic_tasks_misfire_known check (misfire in ('skip', 'one', 'all')),
    constraint periodic_tasks_overlap_known check (overlap in ('allow', 'skip', 'queue_one'))
);

comment on table periodic_tasks is 'Schedules, written by Django, SQL or the command line.';
comment on column periodic_tasks.time_zone is 'IANA zone in which cron_expr is read.';
comment on column periodic_tasks.misfire is 'What to do with runs missed while no beat ran: skip, one (the last), all (the last 100).';
comment on column periodic_tasks.overlap is 'What to do while an earlier run has not ended: allow, skip, queue_one (at most one waits).';
comment on column periodic_tasks.options_json is 'More of what reproq_enqueue_many takes: lock_key, timeout_seconds, backoff_seconds, takes_context.';
comment on column periodic_tasks.planned is 'False until a beat has computed next_run_at from cron_expr.';
comment on column periodic_tasks.cron_expr is 'Five fields or @daily and the like; read by the beat, not here.';
comment on column periodic_tasks.payload_json is '{"args": [...], "kwargs": {...}}; an array is args, another object is kwargs.';
comment on column periodic_tasks.last_run_at is 'Latest occurrence that was dealt with; later ones are due. Null: those after created_at.';
comment on column periodic_tasks.next_run_at is 'Next occurrence, once planned; 9999-12-30 = never again.';
