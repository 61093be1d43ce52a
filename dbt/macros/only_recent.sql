{# In an incremental run: rows up to some days behind the newest that is here, as changes come late.
   For sources whose rows never go: a row that is deleted there would stay here.
   here: what the column is called in this model, where it is not the same. #}
{% macro only_recent(column, days=3, here=none) -%}
    {%- if is_incremental() -%}
        where {{ column }} >= (
            select dateadd('day', -{{ days }}, max({{ here or column }})) from {{ this }}
        )
    {%- endif -%}
{%- endmacro %}
