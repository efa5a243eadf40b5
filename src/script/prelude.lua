-- The part of the sandbox that is Lua: errors as Redis raises them, `redis.*`, and what a script finds of Lua's own
-- library. It runs once in each virtual machine, before any script.
--
-- raw: the functions of ours. They cannot raise errors as Lua's own do, so each returns true and its results, or false
-- and a text.
local raw, G = ...

local error, type, tostring, rawget, pcall, xpcall = error, type, tostring, rawget, pcall, xpcall
local pairs, setmetatable, getmetatable, select = pairs, setmetatable, getmetatable, select
local info, gsub, find, sub, freeze = debug.info, string.gsub, string.find, string.sub, table.freeze
local OURS = info(1, 's')

-- The frames are: this, the function around ours, the script.
local function checked(ok, first, ...)
    if ok then return first, ... end
    error(first, 3)
end

local function around(f)
    return function(...) return checked(f(...)) end
end

local function library(functions)
    local wrapped = {}
    for name, f in pairs(functions) do wrapped[name] = around(f) end
    return wrapped
end

local function json(functions)
    local cjson, new = library(functions), functions.new
    cjson.new = function()
        local _, fresh = new()
        return json(fresh)
    end
    cjson.null, cjson._NAME, cjson._VERSION = raw.null, 'cjson', '2.1.0'
    return cjson
end

-- redis.*

local redis = {}

-- Errors of redis.* are tables, which carry no place in their text.
local function told(ok, first, ...)
    if ok then return first, ... end
    error({ err = first })
end

redis.call, redis.pcall = raw.call, raw.pcall

for name, f in pairs(raw.redis) do
    redis[name] = function(...) return told(f(...)) end
end

-- An error without a code gets one.
local function with_code(text)
    text = gsub(text, '^%-', '')
    text = gsub(text, '[\r\n]+$', '')
    if find(text, ' ', 1, true) then return text end
    return 'ERR ' .. text
end

function redis.error_reply(...)
    local text = ...
    if select('#', ...) ~= 1 or type(text) ~= 'string' then
        return { err = 'ERR wrong number or type of arguments' }
    end
    return { err = with_code(text) }
end

function redis.status_reply(...)
    local text = ...
    if select('#', ...) ~= 1 or type(text) ~= 'string' then
        return { err = 'ERR wrong number or type of arguments' }
    end
    return { ok = text }
end

-- There is no debugger.
function redis.breakpoint() return false end
function redis.debug() end
-- Effects are what is logged, always.
function redis.replicate_commands() return true end

for name, value in pairs(raw.constants) do redis[name] = value end

-- What Lua itself offers a script.

local ALLOWED = {
    'assert', 'coroutine', 'error', 'gcinfo', 'getmetatable', 'ipairs', 'math', 'next', 'pairs', 'rawequal',
    'rawget', 'rawset', 'select', 'setmetatable', 'string', 'table', 'tonumber', 'tostring', 'type', 'unpack',
    'xpcall', '_G',
}
local is_allowed = {}
for _, name in pairs(ALLOWED) do is_allowed[name] = true end
for name in pairs(G) do
    if not is_allowed[name] then G[name] = nil end
end

-- Redis hands out the text of an error that is a table.
local function outcome(ok, err, ...)
    if not ok and type(err) == 'table' then
        local text = rawget(err, 'err')
        if type(text) == 'string' then return false, text end
    end
    return ok, err, ...
end

G._VERSION = 'Lua 5.1'
G._G = G
G.pcall = function(...) return outcome(pcall(...)) end
G.os = { clock = raw.clock }
local gcinfo = G.gcinfo
G.collectgarbage = function(what)
    if what == 'count' then return gcinfo() end
    return 0
end
local compile = raw.compile
G.loadstring = function(text, name)
    local ok, f, problem = compile(text, name)
    if not ok then error(f, 2) end
    if f then return f end
    return nil, problem
end
G.load = function(pieces, name)
    if type(pieces) == 'function' then
        local text = {}
        while true do
            local piece = pieces()
            if piece == nil or piece == '' then break end
            if type(piece) ~= 'string' then return nil, 'reader function must return a string' end
            text[#text + 1] = piece
        end
        pieces = table.concat(text)
    end
    local ok, f, problem = compile(pieces, name or '=(load)')
    if not ok then error(f, 2) end
    if f then return f end
    return nil, problem
end

local random = library(raw.random)
G.math.random, G.math.randomseed = random.random, random.randomseed
G.math.mod = G.math.fmod
G.string.gfind = G.string.gmatch
-- A frozen table would outlive the script.
G.table.freeze, G.table.isfrozen, G.table.clone = nil, nil, nil

G.redis, G.server = redis, redis
G.bit, G.struct, G.cmsgpack = library(raw.bit), library(raw.struct), library(raw.cmsgpack)
G.cmsgpack._NAME, G.cmsgpack._VERSION = 'cmsgpack', 'lua-cmsgpack 0.4.0'
G.cmsgpack._COPYRIGHT = 'Copyright (C) 2012, Salvatore Sanfilippo'
G.cmsgpack._DESCRIPTION = 'MessagePack C implementation for Lua'
G.cjson = json(raw.cjson)
G.KEYS, G.ARGV = raw.keys, raw.arguments

setmetatable(G, freeze({
    __index = function(_, name)
        error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
    end,
}))

for _, name in pairs({ 'coroutine', 'math', 'string', 'table', 'os', 'redis', 'bit', 'struct', 'cmsgpack', 'cjson' }) do
    freeze(G[name])
end
freeze(getmetatable(''))
freeze(G)

-- What went wrong, with the place: the handler of errors of every script.

local function as_redis_words(text)
    return (gsub(text, 'attempt to modify a readonly table', 'Attempt to modify a readonly table'))
end

local function failed(err)
    local source, line
    for level = 2, 32 do
        local name, at = info(level, 'sl')
        if not name then break end
        if name ~= '[C]' and name ~= OURS then
            source, line = name, at
            break
        end
    end
    if type(err) == 'table' then
        local text = rawget(err, 'err')
        -- That of a command was counted.
        return { type(text) == 'string' and text or 'ERR unknown error', source, line,
            rawget(err, 'ignore_error_stats_update') }
    end
    return { 'ERR ' .. as_redis_words(tostring(err)), source, line }
end

return failed
