-- uses: adding flows
-- Adding jobs that are parents and children of each other.
--
-- A group is {the beginning of the keys of its queue, name, opts, delay in ms, priority, lifo, the key of the parent or
-- false, the hash field `parent` or false, whether the jobs are parents, {data, …}, {id, …}}: consecutive jobs that
-- differ only in data and id. A parent comes before its children.

-- Calls a function with the key of each job of the groups, and the key of its parent or false. Stops, and returns what
-- the function returns, at the first value that is not nil.
local function find_in_groups(groups, inspect)
  for _, group in ipairs(groups) do
    for _, id in ipairs(group[11]) do
      local found = inspect(group[1] .. id, group[7], group[1], id)
      if found ~= nil then
        return found
      end
    end
  end
end

-- Stores a new child or parent. Returns whether it is ready and has no priority: then the caller adds it to `wait`.
local function store_in_flow(q, group, id, data, now)
  local delay, priority = group[4], group[5]
  if group[7] then
    store(q, id, group[2], data, group[3], now, delay, priority, 'parentKey', group[7], 'parent', group[8])
  else
    store(q, id, group[2], data, group[3], now, delay, priority)
  end
  if group[9] then
    call('ZADD', q.base .. 'waiting-children', now, id)
    emit(q, 'waiting-children', 'jobId', id)
  elseif delay == 0 and priority == 0 then
    emit_waiting(q, id)
    return true
  else
    add_to_state(q, id, now, delay, priority, group[6])
  end
  return false
end

-- Adds the jobs of the groups, except those whose key is in known, and those without a parent that exist already.
local function add_groups(groups, known, now)
  for _, group in ipairs(groups) do
    local q, waiting, keys = open(group[1]), {}, {}
    for index, id in ipairs(group[11]) do
      if not known[q.base .. id] and (group[7] or call('EXISTS', q.base .. id) == 0) then
        keys[#keys + 1] = q.base .. id
        if store_in_flow(q, group, id, group[10][index], now) then
          waiting[#waiting + 1] = id
        end
      end
    end
    if #keys > 0 then
      call('INCRBY', q.base .. 'id', #keys) -- as in BullMQ, for each job
      if group[7] then
        in_portions('SADD', group[7] .. ':dependencies', keys)
      end
    end
    if #waiting > 0 then
      in_portions(group[6] and 'RPUSH' or 'LPUSH', q.base .. 'wait', waiting)
      q.ready = true
    end
  end
end

-- Children are read in the order of their ids, which is that of adding if hasten has made the ids. For other ids, the
-- parent has the field `hasten:children`: their keys in the order of adding, one in a line. orders is {{the key of a
-- parent, whether the ids of its children are in order, {key of a child, …}}, …}.
local function store_orders(orders, known)
  for _, order in ipairs(orders) do
    local stored = read_field(order[1], 'hasten:children')
    if stored or not order[2] then
      local keys = {}
      for _, key in ipairs(order[3]) do
        if not known[key] then
          keys[#keys + 1] = key
        end
      end
      local before = stored and stored .. '\n' or ''
      call('HSET', order[1], 'hasten:children', before .. table.concat(keys, '\n'))
    end
  end
end
