<?php
// Laravel's queue in its ordinary use, and through two crashes of the store: `php queue_jobs.php PORT`.
putenv('LEDGER=' . tempnam(sys_get_temp_dir(), 'ledger-'));
require_once __DIR__ . '/app.php';

function ask(string $what): void
{
    echo "$what\n";
    fgets(STDIN) !== false or throw new Exception("$what: answered");
}

function check(bool $holds, string $what): void
{
    $holds or throw new LogicException($what);
}

// Waits until it gives something true, and gives that. A store that is away is no failure.
function until(string $what, callable $holds)
{
    $failure = '';
    for ($end = microtime(true) + PATIENCE_SECONDS; microtime(true) < $end; usleep(20_000)) {
        try {
            if ($found = $holds()) {
                return $found;
            }
        } catch (RedisException $error) {
            $failure = $error->getMessage();
        }
    }
    throw new Exception("in time: $what; $failure; " . json_encode([counts('begin'), counts('end')]));
}

function named(string $name, array $more = []): array
{
    return ['name' => $name] + $more;
}

function ordinary($queue, $store): void
{
    for ($at = 0; $at < 40; $at++) {
        $queue->push('Record', named("plain-$at"));
    }
    $queue->bulk(['Record', 'Record'], named('bulk'));
    $queue->push('Record', named('urgent'), 'urgent');
    $queue->later(1, 'Record', named('soon'));
    $queue->later(3600, 'Record', named('far'));
    $queue->push('Flaky', named('good', ['failures' => 2]));
    $queue->push('Flaky', named('bad', ['failures' => 9]));
    until('all of it', fn () => count(counts('end')) === 44 && (counts('failed')['bad'] ?? 0) === 1);
    until('nothing is under way', fn () => $queue->size() === 1 && $queue->size('urgent') === 0);
    $begun = counts('begin');
    check([$begun['good'], $begun['bad'], $begun['bulk']] === [3, 3, 2], json_encode($begun));
    check(array_sum($begun) === 40 + 2 + 2 + 6, 'each job is done once: ' . json_encode($begun));
    check($queue->clear('default') === 1 && $queue->size() === 0, 'a queue can be emptied');

    $taken = [];
    for ($at = 0; $at < 4; $at++) {
        $limiter = $store->throttle('calls')->allow(2)->every(3600)->block(0);
        $taken[] = $limiter->then(fn () => true, fn () => false);
    }
    check($taken === [true, true, false, false], 'a limit of two: ' . json_encode($taken));
    $inside = $store->funnel('one')->limit(1)->releaseAfter(60)->block(0)->then(
        fn () => $store->funnel('one')->limit(1)->block(0)->then(fn () => 'two at once', fn () => 'one'),
        fn () => 'nobody'
    );
    check($inside === 'one', "a funnel for one: $inside");
    check($store->funnel('one')->limit(1)->block(0)->then(fn () => true, fn () => false), 'it is free again');
}

function crashes($queue, $store, int $workers): void
{
    $sent = [];
    $resent = [];
    // Without a reply it fails, and the store may have it already.
    $send = function (string $name, int $delay = 0) use ($queue, &$sent, &$resent) {
        $tries = 0;
        until("$name is sent", function () use ($queue, $name, $delay, &$tries, &$resent) {
            if ($tries++ > 0) {
                $resent[$name] = true;
            }
            return $delay ? $queue->later($delay, 'Record', named($name)) : $queue->push('Record', named($name));
        });
        $sent[] = $name;
    };
    $frozen = [];
    for ($at = 0; $at < 10; $at++) {
        $send("later-$at", 3);
    }
    for ($burst = 0; $burst < 3; $burst++) {
        for ($at = 0; $at < 40; $at++) {
            $send("order-$burst-$at");
        }
        until('some are done', fn () => count(array_intersect($sent, array_keys(counts('end')))) >= 40 * $burst + 15);
        if ($burst < 2) {
            // What is done and still reserved may be done again.
            $ended = counts('end');
            $reserved = implode(' ', $store->zrange('queues:default:reserved', 0, -1));
            $sure = array_filter(array_keys($ended), fn ($name) => !str_contains($reserved, "\"$name\""));
            ask('kill');
            $frozen[] = array_intersect_key(counts('begin'), array_flip($sure));
            ask('start');
        }
    }
    until('all are done', fn () => !array_diff($sent, array_keys(counts('end'))));
    until('nothing is left', fn () => $queue->size() === 0);
    $begun = counts('begin');
    $twice = array_filter($sent, fn ($name) => $begun[$name] > 1 && !isset($resent[$name]));
    // Each worker does one at a time.
    check(count($twice) <= 2 * $workers, 'done twice: ' . implode(' ', $twice));
    foreach ($frozen as $counts) {
        foreach ($counts as $name => $times) {
            check($begun[$name] === $times || isset($resent[$name]), "$name was done and done again");
        }
    }
}

$port = (int) $argv[1];
$queue = queue($port)->getConnection();
$store = $queue->getRedis()->connection('default');
// A supervisor: while this program runs, a worker that ends is followed by another one.
$owner = getmypid();
$supervisors = [];
$words = escapeshellarg(PHP_BINARY) . ' ' . escapeshellarg(__DIR__ . '/worker.php') . " $port $owner";
foreach (['default urgent,default', 'blocking default'] as $takes) {
    $pipes = [];
    $silence = [['file', '/dev/null', 'r'], ['file', '/dev/null', 'w'], ['file', '/dev/null', 'w']];
    $supervisors[] = proc_open("while kill -0 $owner; do $words $takes; sleep 0.1; done", $silence, $pipes);
}
ordinary($queue, $store);
crashes($queue, $store, count($supervisors));
echo "fine\n";
