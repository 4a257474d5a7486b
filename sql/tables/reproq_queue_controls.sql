-- One row is one queue that was paused at some time.
create table reproq_queue_controls (
    queue_name text primary key,
    paused boolean not null default false,
    paused_at timestamptz,
    reason text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

comment on table reproq_queue_controls is 'Pause switches. No row = not paused.';
comment on column reproq_queue_controls.reason is 'The reason given to reproq_pause.';
