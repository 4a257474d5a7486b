-- One row is one unique key of a task path, and the tasks that it names. Read and written by enqueue functions only.
create table reproq_unique_keys (
    key_digest bytea primary key,
    unique_key text not null,
    result_id bigint not null,
    earlier_ids bigint[] not null default '{}'
);

-- Tasks are deleted by result_id. No foreign key: it would forbid TRUNCATE of task_runs, which Django's tests do.
create index reproq_unique_keys_result_id on reproq_unique_keys (result_id);

comment on table reproq_unique_keys is 'Unique keys of tasks: what p_unique_key finds. A row goes with its newest task.';
comment on column reproq_unique_keys.key_digest is 'SHA-256 of task_path, line break, unique_key.';
comment on column reproq_unique_keys.result_id is 'The newest task with this key.';
comment on column reproq_unique_keys.earlier_ids is 'Up to 50 earlier ones that ran or had failed when the newest was enqueued, and so may be queued again.';
