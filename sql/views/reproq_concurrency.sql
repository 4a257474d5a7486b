create or replace view reproq_concurrency with (security_barrier) as
select l.key, l.max_running, l.set_at
from reproq_concurrency_limits l;

revoke all on reproq_concurrency from public;
comment on view reproq_concurrency is 'Limits of concurrency keys that operators set; they win over what tasks say.';
