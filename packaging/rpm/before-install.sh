getent group ironkeep > /dev/null || groupadd --system ironkeep
getent passwd ironkeep > /dev/null || useradd --system --gid ironkeep --home-dir /var/lib/ironkeep \
    --no-create-home --shell /sbin/nologin --comment "Ironkeep data store" ironkeep
exit 0
