-- uses: removing
-- remove_descendants: delete descendants of deleted jobs, except those that run.
-- KEYS  1 the beginning of the keys of a queue
-- ARGV  1 {keys = {key of a job, …}}
-- Returns the keys that are left for the next call.
begin_writing(open(KEYS[1]))
local left = remove_descendants(request.keys)
close_all()
return left
