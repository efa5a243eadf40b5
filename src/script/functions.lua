-- What the machine of functions adds to the sandbox, once, before any library.
--
-- G: what a script finds, which is read-only. read_only: makes a table so. upvalues: the number of the upvalues of a
-- function, which is -1 if it is not written in Lua, and these. upvalues_are: whether they are those of a list.
local G, read_only, upvalues, upvalues_are = ...

local error, type, tostring, select, setmetatable = error, type, tostring, select, setmetatable
local pairs, ipairs, next = pairs, ipairs, next
local rawequal, getmetatable = rawequal, getmetatable
local lower, find, concat = string.lower, string.find, table.concat

local function copy(from, without)
    local to = {}
    for name, value in pairs(from) do to[name] = value end
    for name in pairs(without) do to[name] = nil end
    return to
end

local missing = {
    __index = function(_, name)
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end,
}
read_only(missing)

-- A text that a function compiles finds G itself, in which nothing may be left for others.
read_only(G.KEYS)
read_only(G.ARGV)

-- What a function finds when it is called.

local running = copy(G, { KEYS = true, ARGV = true, os = true })
local redis = copy(G.redis, { breakpoint = true, debug = true, replicate_commands = true })
running.redis, running.server, running._G = redis, redis, running
setmetatable(running, missing)
read_only(redis)
read_only(running)

-- What the text of a library finds while it is loaded: a name to register functions by, and little else.

-- The functions registered so far, while a library is loaded.
local registered

local function fail(text)
    error({ err = 'ERR ' .. text })
end

local FLAGS = { 'no-writes', 'allow-oom', 'allow-stale', 'no-cluster', 'allow-cross-slot-keys' }
local is_flag = {}
for _, name in pairs(FLAGS) do is_flag[name] = true end

local function flags_of(given)
    if type(given) ~= 'table' then
        fail('flags argument to redis.register_function must be a table representing function flags')
    end
    local flags = {}
    for at, flag in ipairs(given) do
        if type(flag) ~= 'string' or not is_flag[lower(flag)] then fail('unknown flag given') end
        flags[at] = lower(flag)
    end
    return concat(flags, ',')
end

local function is_text(value)
    return type(value) == 'string' or type(value) == 'number'
end

local function named(arguments)
    local name, callback, description, flags
    for key, value in next, arguments do
        local word = type(key) == 'string' and lower(key)
        if word == 'function_name' then
            if not is_text(value) then
                fail('function_name argument given to redis.register_function must be a string')
            end
            name = value
        elseif word == 'description' then
            if not is_text(value) then
                fail('description argument given to redis.register_function must be a string')
            end
            description = tostring(value)
        elseif word == 'callback' then
            if type(value) ~= 'function' then
                fail('callback argument given to redis.register_function must be a function')
            end
            callback = value
        elseif word == 'flags' then
            flags = flags_of(value)
        else
            fail('unknown argument given to redis.register_function')
        end
    end
    if not name then fail('redis.register_function must get a function name argument') end
    if not callback then fail('redis.register_function must get a callback argument') end
    return name, callback, description, flags
end

local function positional(name, callback)
    if not is_text(name) then fail('first argument to redis.register_function must be a string') end
    if type(callback) ~= 'function' then fail('second argument to redis.register_function must be a function') end
    return name, callback
end

local function register_function(...)
    if not registered then fail('redis.register_function can only be called on FUNCTION LOAD command') end
    local given, first = select('#', ...), ...
    local name, callback, description, flags
    if given == 1 then
        if type(first) ~= 'table' then
            fail('calling redis.register_function with a single argument is only applicable to Lua table ' ..
                '(representing named arguments).')
        end
        name, callback, description, flags = named(first)
    elseif given == 2 then
        name, callback = positional(...)
    else
        fail('wrong number of arguments to redis.register_function')
    end
    name = tostring(name)
    if not find(name, '^[%w_]+$') then
        fail('Library names can only contain letters, numbers, or underscores(_) and must be at least one ' ..
            'character long')
    end
    for _, other in ipairs(registered) do
        if other.name == name then fail('Function already exists in the library') end
    end
    registered[#registered + 1] = { name = name, callback = callback, description = description, flags = flags or '' }
end

local api = { register_function = register_function, log = redis.log }
for name, value in pairs(redis) do
    if type(value) ~= 'function' and not find(name, '^REPL') then api[name] = value end
end
setmetatable(api, missing)
read_only(api)
local loading = setmetatable({ redis = api, server = api }, missing)
read_only(loading)

-- Where the text of a library finds its globals: in one of these.
local while_loading, while_running = { __index = loading }, { __index = running }
read_only(while_loading)
read_only(while_running)

-- Functions are registered into this table from now on; into none if it is nil.
local function register_in(all)
    registered = all
end

-- What a library keeps from call to call is what its functions reach: upvalues, and fields of tables.

-- How much of that is looked at after each call. A library that has more is taken for one that keeps state.
local REACHED_MAX = 256

-- What is ours is read-only and keeps nothing.
local ours = {}

local function note_ours(value)
    if ours[value] then return end
    if type(value) == 'function' then
        ours[value] = true
    elseif type(value) == 'table' then
        ours[value] = true
        for _, inner in next, value do note_ours(inner) end
    end
end

note_ours(G)
note_ours(running)
note_ours(loading)

-- What these functions reach: a list of {holder, number of values, values}. Nil if that is too much, or something that
-- has an inside which nobody can look at, like the iterator of gmatch.
local function reached_by(functions)
    local queue, notes, seen, count = {}, {}, {}, 0
    local function add(value)
        local kind = type(value)
        if kind == 'nil' or kind == 'boolean' or kind == 'string' or ours[value] or seen[value] then return true end
        -- What is no number equals nothing.
        if kind == 'number' then return value == value end
        if kind ~= 'function' and kind ~= 'table' then return false end
        seen[value] = true
        queue[#queue + 1] = value
        return true
    end
    local function note(holder, size, values)
        count = count + size + 1
        notes[#notes + 1] = { holder, size, values }
    end
    local function note_function(f, size, ...)
        if size > 0 then note(f, size, { ... }) end
        for at = 1, size do
            if not add((select(at, ...))) then return false end
        end
        return size >= 0
    end
    local function note_table(t)
        local size, values = 0, {}
        for key, value in next, t do
            if size > REACHED_MAX or not add(key) or not add(value) then return false end
            size, values[key] = size + 1, value
        end
        note(t, size, values)
        return getmetatable(t) == nil
    end
    for _, f in next, functions do add(f) end
    local at = 1
    while queue[at] do
        local holder = queue[at]
        local is_known
        if type(holder) == 'table' then is_known = note_table(holder)
        else is_known = note_function(holder, upvalues(holder)) end
        if not is_known or count > REACHED_MAX then return nil end
        at = at + 1
    end
    return notes
end

local function is_same(a, b)
    -- Zero has two forms, which are equal.
    return rawequal(a, b) and (a ~= 0 or 1 / a == 1 / b)
end

local function table_is(t, size, values)
    if getmetatable(t) ~= nil then return false end
    for key, value in next, t do
        size = size - 1
        if size < 0 or not is_same(values[key], value) then return false end
    end
    return size == 0
end

-- A function that fails if what these functions reach is not as it is now; nil if that cannot be known.
local function watch(functions)
    local notes = reached_by(functions)
    if not notes then return nil end
    return function()
        for _, note in next, notes do
            local holder, is_as_before = note[1], nil
            if type(holder) == 'table' then is_as_before = table_is(holder, note[2], note[3])
            else is_as_before = upvalues_are(holder, note[3]) end
            if not is_as_before then error('state was changed') end
        end
    end
end

return while_loading, while_running, register_in, watch
