-- One row is one chord: members that must all succeed before the callback runs.
create table workflow_runs (
    workflow_id uuid primary key,
    expected_count integer not null,
    success_count integer not null default 0,
    failure_count integer not null default 0,
    callback_result_id bigint,
    status text not null default 'RUNNING',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    revision integer not null default 0,
    constraint workflow_runs_status_known
        check (status in ('RUNNING', 'WAITING_CALLBACK', 'SUCCESSFUL', 'FAILED'))
);
create index workflow_runs_open on workflow_runs (workflow_id)
    where status in ('RUNNING', 'WAITING_CALLBACK');
create index workflow_runs_callback on workflow_runs (callback_result_id);

comment on table workflow_runs is 'Chords: expected_count members and a callback. Counts are recomputed from task_runs, never added up.';
comment on column workflow_runs.status is 'RUNNING until all members succeeded, then WAITING_CALLBACK, then SUCCESSFUL; FAILED when a member or the callback failed.';
comment on column workflow_runs.expected_count is 'Members, the callback not counted.';
comment on column workflow_runs.success_count is 'Members that succeeded; at most a second old in a chord of more than 100.';
comment on column workflow_runs.failure_count is 'Members that ended otherwise; likewise.';
comment on column workflow_runs.revision is 'Raised by every update of our functions. One that leaves it came past them: triggers then take counts and status from the rows.';
