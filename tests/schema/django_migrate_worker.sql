-- What Reproq Django's `migrate-worker` command does, at any time, before or after our migrations.
create or replace function reproq_task_path_from_spec() returns trigger language plpgsql as $$
begin
    if new.task_path is null or new.task_path = '' then
        new.task_path := new.spec_json ->> 'task_path';
    end if;
    return new;
end
$$;
drop trigger if exists trg_task_runs_task_path on task_runs;
create trigger trg_task_runs_task_path before insert or update of spec_json, task_path on task_runs
    for each row execute function reproq_task_path_from_spec();

create table if not exists rate_limits (
    key text primary key,
    tokens_per_second real not null,
    burst_size integer not null,
    current_tokens real not null,
    last_refilled_at timestamptz not null default now()
);
insert into rate_limits (key, tokens_per_second, burst_size, current_tokens) values ('global', 0, 1, 0)
on conflict (key) do nothing;
create table if not exists workflow_runs (
    workflow_id uuid primary key,
    expected_count integer not null,
    success_count integer not null default 0,
    failure_count integer not null default 0,
    callback_result_id bigint,
    status text not null default 'RUNNING',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index if not exists idx_workflow_runs_callback on workflow_runs (callback_result_id);

create index if not exists idx_task_runs_claim on task_runs (queue_name, status, priority desc, enqueued_at)
    where status = 'READY';
create index if not exists idx_task_runs_claim_due on task_runs
    (queue_name, coalesce(run_after, '-infinity'::timestamptz), priority desc, enqueued_at) where status = 'READY';
create index if not exists idx_task_runs_concurrency_active on task_runs (concurrency_key, leased_until)
    where status = 'RUNNING' and concurrency_key is not null;
create index if not exists idx_task_runs_failed_at on task_runs (failed_at) where status = 'FAILED';
create index if not exists idx_task_runs_lock_key on task_runs (lock_key) where status = 'RUNNING';
create index if not exists idx_task_runs_parent_id on task_runs (parent_id) where status = 'WAITING';
create index if not exists idx_task_runs_task_path on task_runs (task_path);
create index if not exists idx_task_runs_workflow_id on task_runs (workflow_id);
create unique index if not exists idx_task_runs_spec_unique on task_runs (spec_hash)
    where status in ('READY', 'RUNNING');
