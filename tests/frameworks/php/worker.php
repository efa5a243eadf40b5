<?php
// A worker of queue_jobs.php: `php worker.php PORT OWNER CONNECTION QUEUES`. It ends with its owner, or when it loses the store.
require_once __DIR__ . '/app.php';

use Illuminate\Contracts\Debug\ExceptionHandler;
use Illuminate\Queue\Events\Looping;
use Illuminate\Queue\Worker;
use Illuminate\Queue\WorkerOptions;

class Reporter implements ExceptionHandler
{
    public function report(Throwable $failure)
    {
        // As those who run workers configure it: a supervisor starts another one.
        if ($failure instanceof RedisException) {
            exit(1);
        }
    }

    public function shouldReport(Throwable $failure)
    {
        return true;
    }

    public function render($request, Throwable $failure)
    {
    }

    public function renderForConsole($output, Throwable $failure)
    {
    }
}

[, $port, $owner, $connection, $queues] = $argv;
$queue = queue((int) $port);
$events = $queue->getContainer()->make('Illuminate\Contracts\Events\Dispatcher');
$events->listen(Looping::class, function () use ($owner) {
    if (!posix_kill((int) $owner, 0)) {
        exit(0);
    }
});
$worker = new Worker($queue->getQueueManager(), $events, new Reporter, fn () => false);
$worker->daemon($connection, $queues, new WorkerOptions('default', 0, 128, 60, 0.02, 3));
