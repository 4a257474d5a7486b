-- The one row holds what reproq_metrics counted last, when there was much to count.
create table reproq_metrics_cache (
    is_only boolean primary key default true check (is_only),
    counted_at timestamptz not null,
    numbers jsonb not null
);

comment on table reproq_metrics_cache is 'The last count of reproq_metrics, shared by all workers for 15 seconds.';
comment on column reproq_metrics_cache.numbers is 'Array of [metric, label, value].';
