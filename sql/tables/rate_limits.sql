-- One row is one token bucket: 'task:<path>', 'queue:<name>' or 'global'.
create table rate_limits (
    key text primary key,
    tokens_per_second real not null,
    burst_size integer not null,
    current_tokens real not null,
    last_refilled_at timestamptz not null default now(),
    throttled_until timestamptz
);
insert into rate_limits (key, tokens_per_second, burst_size, current_tokens)
values ('global', 0, 1, 0)
on conflict (key) do nothing;

comment on table rate_limits is 'Token buckets. The most specific one applies: task, else queue, else global.';
comment on column rate_limits.tokens_per_second is 'Starts a second; 0 = no limit, a wider one neither.';
comment on column rate_limits.burst_size is 'Size of the bucket; it starts full. 0 counts as if the row were absent: only a throttle made it.';
comment on column rate_limits.current_tokens is 'Level at last_refilled_at; refilled by the database clock when read.';
comment on column rate_limits.throttled_until is 'Nothing starts before this instant, whatever the rate: a task of this path asked for it (Throttled).';
comment on column rate_limits.key is 'task:<path>, queue:<name> or global.';
