-- One row is one durable step of a task: what its function returned. Written through reproq_step_save only.
create table reproq_steps (
    result_id bigint not null,
    name text not null,
    value jsonb,
    attempt integer not null,
    stored_at timestamptz not null default now(),
    primary key (result_id, name)
);

comment on table reproq_steps is 'Durable steps of tasks: a later attempt gets the stored value instead of running the step again. Rows go with their task.';
comment on column reproq_steps.result_id is 'The task. No foreign key: it would forbid TRUNCATE of task_runs, which Django''s tests do.';
comment on column reproq_steps.name is 'Unique within the task.';
comment on column reproq_steps.value is 'What the step returned.';
comment on column reproq_steps.attempt is 'The attempt that ran it.';
