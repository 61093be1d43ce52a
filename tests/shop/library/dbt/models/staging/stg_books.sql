select
    isbn,
    title,
    price
from {{ source('library', 'books') }}
