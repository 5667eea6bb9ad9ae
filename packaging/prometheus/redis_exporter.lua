-- For prometheus-redis-exporter's option -script: the module's numbers as
-- redis_script_values{key="uffd_..."}. The exporter wants names and values in turn, all text.
local status, figures = redis.call('UFFD.STATUS'), {}
for field = 1, #status, 2 do
    if type(status[field + 1]) == 'number' then
        figures[#figures + 1] = 'uffd_' .. status[field]
        figures[#figures + 1] = string.format('%.0f', status[field + 1])
    end
end
return figures
