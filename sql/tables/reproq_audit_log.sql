-- One row is one operator's action.
create table reproq_audit_log (
    audit_id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    who text not null,
    origin text not null,
    what text not null,
    details jsonb not null default '{}',
    why text
);
create index reproq_audit_log_at on reproq_audit_log (at);

comment on table reproq_audit_log is 'What operators did through the reproq_ functions; read it with reproq_audit().';
comment on column reproq_audit_log.who is 'The role that logged in (session_user).';
comment on column reproq_audit_log.origin is 'Client address and application name.';
comment on column reproq_audit_log.why is 'The setting reproq.reason of the session, if any: set reproq.reason = ''ticket 42''.';
comment on column reproq_audit_log.what is 'cancel, retry, replay, pause, resume, limit_set, limit_rm, concurrency_set, schedule_set, schedule_rm, prune_expired, prune_finished, prune_audit.';
comment on column reproq_audit_log.details is 'Object: what it was done to, and how.';
