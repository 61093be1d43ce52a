delete from lending.loans where loan_no % 50 = 0;
update lending.loans set returned_at = now(), updated_at = clock_timestamp() where loan_no % 60 = 4;
insert into lending.loans
select 7, n, 'isbn-1', 1, 0.0001, now(), null, clock_timestamp() from generate_series(1, 20) n;
update lending.books set price = price + 1, updated_at = now() where price > 50;
insert into lending.door_counts values (now(), 99, 'late');
