-- What the machine of functions adds to the sandbox, once, before any library.
--
-- G: what a script finds, which is read-only. read_only: makes a table so.
local G, read_only = ...

local error, type, tostring, select, setmetatable = error, type, tostring, select, setmetatable
local pairs, ipairs, next = pairs, ipairs, next
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

return while_loading, while_running, register_in
