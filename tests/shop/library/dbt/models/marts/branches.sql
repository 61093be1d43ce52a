select
    loans.branch_no,
    count(*) as loan_count,
    count_if(loans.returned_at is null) as open_count,
    sum(loans.fee) as fees,
    count(books.price) as priced_count
from {{ ref('stg_loans') }} as loans
inner join {{ ref('stg_books') }} as books on loans.isbn = books.isbn
group by loans.branch_no
