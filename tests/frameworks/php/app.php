<?php
// The jobs of queue_jobs.php, and how Laravel's queue is set up. The workers load it, too.
require_once 'Illuminate/Events/autoload.php';
require_once 'Illuminate/Queue/autoload.php';
require_once 'Illuminate/Redis/autoload.php';

use Illuminate\Container\Container;
use Illuminate\Events\Dispatcher;
use Illuminate\Queue\Capsule\Manager;
use Illuminate\Redis\RedisManager;

// These packages are older than this PHP.
error_reporting(E_ALL & ~E_DEPRECATED);

const PATIENCE_SECONDS = 60;

// What was done, in the order it was: workers append to one file.
function note(string $kind, string $name): void
{
    file_put_contents(getenv('LEDGER'), "$kind $name\n", FILE_APPEND | LOCK_EX);
}

function counts(string $kind): array
{
    $found = [];
    foreach (file(getenv('LEDGER'), FILE_IGNORE_NEW_LINES) as $line) {
        [$said, $name] = explode(' ', $line);
        if ($said === $kind) {
            $found[$name] = ($found[$name] ?? 0) + 1;
        }
    }
    return $found;
}

class Record
{
    public function fire($job, $data)
    {
        note('begin', $data['name']);
        usleep(10_000);
        note('end', $data['name']);
        $job->delete();
    }
}

class Flaky
{
    public function fire($job, $data)
    {
        note('begin', $data['name']);
        if ($job->attempts() <= $data['failures']) {
            throw new RuntimeException('not yet');
        }
        note('end', $data['name']);
        $job->delete();
    }

    public function failed($data, $exception)
    {
        note('failed', $data['name']);
    }
}

function queue(int $port): Manager
{
    $container = new Container;
    Container::setInstance($container);
    $container->instance('Illuminate\Contracts\Events\Dispatcher', new Dispatcher($container));
    $queue = new Manager($container);
    $store = ['host' => '127.0.0.1', 'port' => $port, 'database' => 0];
    $container->instance('redis', new RedisManager($container, 'phpredis', ['default' => $store]));
    // A worker that is gone is noticed after eight seconds.
    $options = ['driver' => 'redis', 'connection' => 'default', 'queue' => 'default', 'retry_after' => 8];
    $queue->addConnection($options);
    $queue->addConnection(['block_for' => 1] + $options, 'blocking');
    return $queue;
}
