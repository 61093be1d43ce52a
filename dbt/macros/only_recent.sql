{# In an incremental run: rows up to some days behind the newest that is here, as changes come late. #}
{% macro only_recent(column, days=3) -%}
    {%- if is_incremental() -%}
        where {{ column }} >= (select dateadd('day', -{{ days }}, max({{ column }})) from {{ this }})
    {%- endif -%}
{%- endmacro %}
