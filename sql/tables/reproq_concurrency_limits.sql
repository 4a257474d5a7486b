-- One row is the limit that an operator set for a concurrency key.
create table reproq_concurrency_limits (
    key text primary key,
    max_running integer not null,
    set_at timestamptz not null default now(),
    constraint reproq_concurrency_limits_positive check (max_running >= 1)
);

comment on table reproq_concurrency_limits is 'Limits of concurrency keys that operators set with reproq_concurrency_set; they win over what tasks say.';
comment on column reproq_concurrency_limits.max_running is 'At most this many tasks of the key run at a time.';
