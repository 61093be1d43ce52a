-- A library's database: no name of it is the sample's.
create schema lending;
create table lending.members (
    member_id serial primary key,
    full_name text not null,
    joined_on date not null,
    updated_at timestamptz not null
);
create table lending.books (
    isbn text primary key,
    title text not null,
    price numeric(8, 2),
    updated_at timestamp not null
);
create table lending.loans (
    branch_no integer not null,
    loan_no integer not null,
    isbn text not null references lending.books,
    member_id integer not null references lending.members,
    fee numeric(10, 4) not null,
    lent_at timestamptz not null,
    returned_at timestamptz,
    updated_at timestamptz not null,
    primary key (branch_no, loan_no)
);
create table lending.door_counts (
    counted_at timestamp,
    visitors integer,
    remark text
);
insert into lending.members (full_name, joined_on, updated_at)
select 'Member ' || n || case when n % 7 = 0 then ' Ünïcode ''quoted''' else '' end,
       date '2015-02-28' + n, timestamptz '2026-01-01 08:00+02' + n * interval '1 minute'
from generate_series(1, 60) n;
insert into lending.books
select 'isbn-' || n, 'Book ' || n, case when n % 5 > 0 then n * 1.37 end,
       timestamp '2026-01-01 00:00:00.123456' + n * interval '1 hour'
from generate_series(1, 40) n;
insert into lending.loans
select n % 3, n, 'isbn-' || 1 + n % 40, 1 + n % 60, n / 7.0,
       timestamptz '2026-01-02 23:30-05' + n * interval '1 hour',
       case when n % 4 > 0 then timestamptz '2026-02-01 12:00+00' + n * interval '1 hour' end,
       timestamptz '2026-02-03 00:00+00' + n * interval '1 second'
from generate_series(1, 300) n;
insert into lending.door_counts
select timestamp '2026-01-01' + n * interval '1 hour', n % 13, case when n % 2 = 0 then 'same' end
from generate_series(1, 50) n;
insert into lending.door_counts values (null, null, null), (null, null, null);
create role library_reader login;
grant usage on schema lending to library_reader;
grant select on all tables in schema lending to library_reader;
