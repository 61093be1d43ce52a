-- The sample shop: every column type that hurts a pipeline, and NULLs wherever they are allowed.
create schema shop_admin;
create table shop_admin.calendar (day integer not null, seed bigint not null);

create type order_status as enum ('placed', 'paid', 'shipped', 'completed', 'returned', 'cancelled');

create table customers (
    customer_id bigint primary key,
    external_id uuid not null,
    email text,
    full_name text,
    phone text,
    birth_date date,
    is_subscribed boolean,
    preferences jsonb,
    tags text[],
    lifetime_value numeric(12, 2),
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table addresses (
    address_id bigint primary key,
    customer_id bigint not null references customers,
    line1 text,
    city text,
    postcode text,
    country_code char(2),
    "primary" boolean,
    latitude numeric(9, 6),
    longitude numeric(9, 6),
    updated_at timestamptz not null
);

create table suppliers (
    supplier_id integer primary key,
    name text not null,
    country_code char(2),
    rating numeric(3, 2),
    active boolean,
    updated_at timestamptz not null
);

create table products (
    product_id bigint primary key,
    supplier_id integer not null references suppliers,
    sku text not null,
    name text not null,
    description text,
    category text,
    price numeric(12, 2) not null,
    unit_cost numeric(38, 10),
    attributes jsonb,
    discontinued_on date,
    updated_at timestamptz not null
);

create table orders (
    order_id bigint primary key,
    customer_id bigint not null references customers,
    address_id bigint references addresses on delete set null,
    status order_status not null,
    "order" text,
    currency char(3) not null,
    discount numeric(12, 2),
    note text,
    ordered_at timestamptz not null,
    updated_at timestamptz not null
);

create table order_items (
    order_id bigint not null references orders on delete cascade,
    line_number integer not null,
    product_id bigint not null references products,
    quantity integer not null,
    unit_price numeric(12, 2) not null,
    tax_rate numeric(6, 4),
    updated_at timestamptz not null,
    primary key (order_id, line_number)
);

create table payments (
    payment_id uuid primary key,
    order_id bigint not null references orders on delete cascade,
    method text not null,
    amount numeric(12, 2) not null,
    fx_rate numeric(38, 10),
    status text not null,
    paid_at timestamptz,
    details jsonb,
    updated_at timestamptz not null
);

create table web_events (
    event_id bigint primary key,
    customer_id bigint,
    session_id uuid not null,
    event_type text not null,
    page_url text,
    referrer text,
    properties jsonb,
    occurred_at timestamptz not null
);

create index on addresses (customer_id);
create index on orders (address_id);
create index on orders (updated_at);
create index on order_items (updated_at);
create index on payments (order_id);
create index on payments (updated_at);

create publication sluice for table
    addresses, customers, order_items, orders, payments, products, suppliers, web_events;

grant usage on schema public to shop_reader;
grant select on all tables in schema public to shop_reader;
alter default privileges in schema public grant select on tables to shop_reader;
