/*
 * checkpoint_engine.c: the engine's life: connection, events, threads, slots
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory (docs/internals/threads.md): the main context runs libvirt's event loop and
 * never waits: an event is noted and its work goes to the pool.  An operation runs on
 * the thread of its caller, which holds the domain's slot meanwhile; two operations on
 * one domain exclude each other, those on two domains do not.
 *
 * Events come over one connection, which is made again whenever it went away; events
 * may have been missed then, so every domain counts as not settled.  Operations have
 * connections of their own (checkpoint_connections.c).  What the engine knows is in the
 * store: it can be killed at any moment.
 */

#include "config.h"

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <string.h>

#include "checkpoint_enginepriv.h"
#include "checkpoint_error.h"
#include "checkpoint_heirs.h"
#include "checkpoint_leaving.h"
#include "checkpoint_xml.h"

/** Between two tries to reach a backend that went away. */
#define RECONNECT_MS 1000

typedef struct virCheckpointEngineTask {
    virCheckpointEngineTaskFunc func;
    gpointer data;
    GDestroyNotify free;
} virCheckpointEngineTask;

static void
virCheckpointEngineRunTask(gpointer data, gpointer opaque)
{
    g_autofree virCheckpointEngineTask *task = data;
    virCheckpointEngine *engine = opaque;

    task->func(engine, task->data);
    if (task->free)
        task->free(task->data);
    virCheckpointEngineRelease(engine);
}

void
virCheckpointEngineSpawn(virCheckpointEngine *engine,
                         virCheckpointEngineTaskFunc func,
                         gpointer data,
                         GDestroyNotify free)
{
    virCheckpointEngineTask *task = g_new0(virCheckpointEngineTask, 1);

    task->func = func;
    task->data = data;
    task->free = free;
    g_mutex_lock(&engine->lock);
    if (!engine->stopping) {
        engine->busy++;
        g_thread_pool_push(engine->pool, task, NULL);
        task = NULL;
    }
    g_mutex_unlock(&engine->lock);
    if (!task)
        return;
    /* The pool is being drained: what is recorded is taken up by the next start. */
    if (free)
        free(data);
    g_free(task);
}

void
virCheckpointEngineHold(virCheckpointEngine *engine)
{
    g_mutex_lock(&engine->lock);
    engine->busy++;
    g_mutex_unlock(&engine->lock);
}

void
virCheckpointEngineRelease(virCheckpointEngine *engine)
{
    g_mutex_lock(&engine->lock);
    g_assert(engine->busy > 0);
    engine->busy--;
    g_mutex_unlock(&engine->lock);
}

gboolean
virCheckpointEngineIsBusy(virCheckpointEngine *engine)
{
    gboolean busy;

    g_mutex_lock(&engine->lock);
    busy = engine->busy > (engine->reconnecting ? 1 : 0);
    g_mutex_unlock(&engine->lock);
    return busy;
}

gboolean
virCheckpointEngineStopping(virCheckpointEngine *engine)
{
    gboolean stopping;

    g_mutex_lock(&engine->lock);
    stopping = engine->stopping;
    g_mutex_unlock(&engine->lock);
    return stopping;
}

gboolean
virCheckpointEngineSleep(virCheckpointEngine *engine, guint timeoutMs)
{
    gint64 until = g_get_monotonic_time() + (gint64)timeoutMs * 1000;
    gboolean stopping;

    g_mutex_lock(&engine->lock);
    while (!engine->stopping &&
           g_cond_wait_until(&engine->changed, &engine->lock, until))
        ;
    stopping = engine->stopping;
    g_mutex_unlock(&engine->lock);
    return stopping;
}

void
virCheckpointEngineUnsettle(virCheckpointEngine *engine, const gchar *uuid)
{
    g_mutex_lock(&engine->lock);
    g_hash_table_remove(engine->settled, uuid);
    g_mutex_unlock(&engine->lock);
}

static void
virCheckpointEngineSettleTask(virCheckpointEngine *engine, gpointer data)
{
    g_autoptr(GError) error = NULL;

    if (!virCheckpointEngineStopping(engine) &&
        !virCheckpointEngineSettle(engine, data, &error))
        g_warning("domain %s is not settled: %s", (const gchar *)data, error->message);
}

static void
virCheckpointEngineMigratedTask(virCheckpointEngine *engine, gpointer data)
{
    if (!virCheckpointEngineStopping(engine))
        virCheckpointLeavingMigrated(engine, data);
}

/* Every domain that has a folder is settled, in the background. */
static void
virCheckpointEngineSettleAll(virCheckpointEngine *engine)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) uuids = virCheckpointStoreListDomains(engine->store, &error);
    guint i;

    if (!uuids)
        g_warning("%s", error->message);
    for (i = 0; uuids && i < uuids->len; i++)
        virCheckpointEngineSpawn(engine, virCheckpointEngineSettleTask,
                                 g_strdup(g_ptr_array_index(uuids, i)), g_free);
}

/*
 * QEMU closes no fdset while its guest is suspended (monitor_fdset_cleanup() in 7.2),
 * not even removed ones: those of operations in that time are swept when it runs again.
 * A guest that is being started is resumed, too, and is not settled yet.
 */
static void
virCheckpointEngineResumed(virCheckpointEngine *engine, const gchar *uuid)
{
    gboolean settled;

    g_mutex_lock(&engine->lock);
    settled = g_hash_table_remove(engine->settled, uuid);
    g_mutex_unlock(&engine->lock);
    if (settled)
        virCheckpointEngineSpawn(engine, virCheckpointEngineSettleTask, g_strdup(uuid),
                                 g_free);
}

static int
virCheckpointEngineLifecycle(
    virConnectPtr conn, virDomainPtr domain, int event, int detail, void *opaque)
{
    virCheckpointEngine *engine = opaque;
    char uuid[VIR_UUID_STRING_BUFLEN];

    if (virDomainGetUUIDString(domain, uuid) < 0)
        return 0;
    if (event == VIR_DOMAIN_EVENT_STARTED || event == VIR_DOMAIN_EVENT_STOPPED ||
        event == VIR_DOMAIN_EVENT_CRASHED)
        virCheckpointEngineUnsettle(engine, uuid);
    if (event == VIR_DOMAIN_EVENT_STOPPED || event == VIR_DOMAIN_EVENT_CRASHED)
        virCheckpointHeirsWasOff(uuid);
    virCheckpointMirrorDomainEvent(engine, uuid, event, detail);
    if (event == VIR_DOMAIN_EVENT_RESUMED)
        virCheckpointEngineResumed(engine, uuid);
    if (event == VIR_DOMAIN_EVENT_STOPPED &&
        detail == VIR_DOMAIN_EVENT_STOPPED_MIGRATED &&
        virCheckpointEngineTracks(engine, uuid))
        virCheckpointEngineSpawn(engine, virCheckpointEngineMigratedTask,
                                 g_strdup(uuid), g_free);
    if (event == VIR_DOMAIN_EVENT_STARTED ||
        (event == VIR_DOMAIN_EVENT_RESUMED &&
         detail == VIR_DOMAIN_EVENT_RESUMED_MIGRATED) ||
        ((event == VIR_DOMAIN_EVENT_STOPPED || event == VIR_DOMAIN_EVENT_UNDEFINED) &&
         virCheckpointLeavingIsMarked(engine, uuid)))
        virCheckpointEngineSpawn(engine, virCheckpointEngineSettleTask, g_strdup(uuid),
                                 g_free);
    return 0;
}

static void
virCheckpointEngineHoldTask(virCheckpointEngine *engine, gpointer data)
{
    gchar **parts = data;

    virCheckpointHeirsHold(parts[0], parts[1]);
}

/*
 * A job of somebody else's changes the layers: at READY (before the pivot) and at its
 * end the parts that it froze or moved are looked at.
 */
static void
virCheckpointEngineBlockJob(virConnectPtr conn,
                            virDomainPtr domain,
                            const char *disk,
                            int type,
                            int status,
                            void *opaque)
{
    virCheckpointEngine *engine = opaque;
    char uuid[VIR_UUID_STRING_BUFLEN];
    gchar *both[] = {uuid, (gchar *)disk, NULL};

    if (virDomainGetUUIDString(domain, uuid) < 0)
        return;
    virCheckpointMirrorBlockJobEvent(engine, uuid, disk, type, status);
    if (virCheckpointEngineHasMirror(engine, uuid, disk))
        return;
    virCheckpointHeirsJobEvent(uuid, disk, type);
    if (type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY && status == VIR_DOMAIN_BLOCK_JOB_READY)
        virCheckpointEngineSpawn(engine, virCheckpointEngineHoldTask, g_strdupv(both),
                                 (GDestroyNotify)g_strfreev);
    virCheckpointEngineUnsettle(engine, uuid);
    virCheckpointEngineSpawn(engine, virCheckpointEngineSettleTask, g_strdup(uuid),
                             g_free);
}

/* Comes before libvirt's event of the same job, on the same connection. */
static void
virCheckpointEngineQemuJob(virConnectPtr conn,
                           virDomainPtr domain,
                           const char *event,
                           long long seconds,
                           unsigned int micros,
                           const char *details,
                           void *opaque)
{
    char uuid[VIR_UUID_STRING_BUFLEN];

    if (details && virDomainGetUUIDString(domain, uuid) == 0)
        virCheckpointMirrorQemuJobEvent(opaque, uuid, details);
}

static void
virCheckpointEngineJobCompleted(virConnectPtr conn,
                                virDomainPtr domain,
                                virTypedParameterPtr params,
                                int count,
                                void *opaque)
{
    char uuid[VIR_UUID_STRING_BUFLEN];

    if (virDomainGetUUIDString(domain, uuid) == 0)
        virCheckpointBackupJobEvent(opaque, uuid, params, count);
}

static void
virCheckpointEngineDeviceRemoved(virConnectPtr conn,
                                 virDomainPtr domain,
                                 const char *alias,
                                 void *opaque)
{
    char uuid[VIR_UUID_STRING_BUFLEN];

    if (virDomainGetUUIDString(domain, uuid) == 0)
        virCheckpointMirrorDeviceEvent(opaque, uuid);
}

static void
virCheckpointEngineReconnectTask(virCheckpointEngine *engine, gpointer data)
{
    while (!virCheckpointEngineSleep(engine, RECONNECT_MS)) {
        if (virCheckpointEngineWatch(engine, NULL))
            break;
    }
    g_mutex_lock(&engine->lock);
    engine->reconnecting = FALSE;
    g_mutex_unlock(&engine->lock);
}

static void
virCheckpointEngineReconnect(virCheckpointEngine *engine)
{
    gboolean begin;

    g_mutex_lock(&engine->lock);
    begin = !engine->reconnecting && !engine->stopping;
    if (begin)
        engine->reconnecting = TRUE;
    g_mutex_unlock(&engine->lock);
    if (begin)
        virCheckpointEngineSpawn(engine, virCheckpointEngineReconnectTask, NULL, NULL);
}

/* Main context. */
static void
virCheckpointEngineClosed(virConnectPtr conn, int reason, void *opaque)
{
    g_info("the connection to libvirt is gone (%d)", reason);
    virCheckpointEngineReconnect(opaque);
}

/* Takes the host's lock, once; the backend must answer for that. */
static gboolean
virCheckpointEngineLockHost(virCheckpointEngine *engine,
                            virConnectPtr conn,
                            GError **error)
{
    g_autofree char *capabilities = NULL;
    g_autofree gchar *uuid = NULL;
    g_autoptr(GPtrArray) locks = NULL;
    g_autoptr(xmlDoc) doc = NULL;

    if (g_atomic_int_get(&engine->hostLocked))
        return TRUE;
    if (!(capabilities = virConnectGetCapabilities(conn)))
        return virCheckpointDomainSetError(error);
    if (!(doc = virCheckpointXmlParse(capabilities, "(capabilities)", "capabilities",
                                      error)))
        return FALSE;
    uuid = virCheckpointXmlString(xmlDocGetRootElement(doc), "string(./host/uuid)");
    if (!virCheckpointStoreLockHost(engine->store, uuid ? uuid : "host", error))
        return FALSE;
    engine->host = g_steal_pointer(&uuid);
    /* From here on no daemon of this host but us has any. */
    locks = virCheckpointStoreListLocks(engine->store);
    virCheckpointMonitorEndStorageDaemons(locks);
    g_atomic_int_set(&engine->hostLocked, TRUE);
    return TRUE;
}

gboolean
virCheckpointEngineTakeStore(virCheckpointEngine *engine,
                             virConnectPtr conn,
                             GError **error)
{
    gboolean taken;

    if (g_atomic_int_get(&engine->hostLocked))
        return TRUE;
    g_mutex_lock(&engine->connectLock);
    taken = virCheckpointEngineLockHost(engine, conn, error);
    g_mutex_unlock(&engine->connectLock);
    if (taken) {
        g_info("store '%s' can be used now", virCheckpointStoreRoot(engine->store));
        virCheckpointEngineSettleAll(engine);
    }
    return taken;
}

/* Beside another daemon there is no place; without its store a daemon passes on what it
 * cannot answer, and tries again with each operation. */
static gboolean
virCheckpointEngineMayServe(virCheckpointEngine *engine,
                            virConnectPtr conn,
                            GError **error)
{
    g_autoptr(GError) failed = NULL;

    if (virCheckpointEngineLockHost(engine, conn, &failed))
        return TRUE;
    if (failed->domain == VIR_CHECKPOINT_ERROR &&
        failed->code != VIR_ERR_RESOURCE_BUSY) {
        g_warning("no checkpoints can be used: %s", failed->message);
        return TRUE;
    }
    g_propagate_error(error, g_steal_pointer(&failed));
    return FALSE;
}

/* Forgets the connection.  connectLock is held, or no other thread is left. */
static void
virCheckpointEngineDropConnection(virCheckpointEngine *engine)
{
    virConnectPtr conn;

    g_mutex_lock(&engine->lock);
    conn = g_steal_pointer(&engine->conn);
    g_mutex_unlock(&engine->lock);
    if (!conn)
        return;
    virConnectUnregisterCloseCallback(conn, virCheckpointEngineClosed);
    if (engine->lifecycleId >= 0)
        virConnectDomainEventDeregisterAny(conn, engine->lifecycleId);
    if (engine->blockJobId >= 0)
        virConnectDomainEventDeregisterAny(conn, engine->blockJobId);
    if (engine->jobId >= 0)
        virConnectDomainEventDeregisterAny(conn, engine->jobId);
    if (engine->deviceId >= 0)
        virConnectDomainEventDeregisterAny(conn, engine->deviceId);
    if (engine->qemuJobId >= 0)
        virConnectDomainQemuMonitorEventDeregister(conn, engine->qemuJobId);
    engine->lifecycleId = -1;
    engine->blockJobId = -1;
    engine->jobId = -1;
    engine->deviceId = -1;
    engine->qemuJobId = -1;
    virConnectClose(conn);
}

/* Opens and registers; connectLock is held. */
static gboolean
virCheckpointEngineOpenConnection(virCheckpointEngine *engine, GError **error)
{
    virConnectPtr conn = virConnectOpen(engine->uri);

    if (!conn)
        return virCheckpointDomainSetError(error);
    g_mutex_lock(&engine->lock);
    engine->conn = conn;
    g_mutex_unlock(&engine->lock);
    engine->lifecycleId = virConnectDomainEventRegisterAny(
        conn, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        VIR_DOMAIN_EVENT_CALLBACK(virCheckpointEngineLifecycle), engine, NULL);
    engine->blockJobId = virConnectDomainEventRegisterAny(
        conn, NULL, VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
        VIR_DOMAIN_EVENT_CALLBACK(virCheckpointEngineBlockJob), engine, NULL);
    engine->jobId = virConnectDomainEventRegisterAny(
        conn, NULL, VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
        VIR_DOMAIN_EVENT_CALLBACK(virCheckpointEngineJobCompleted), engine, NULL);
    engine->deviceId = virConnectDomainEventRegisterAny(
        conn, NULL, VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
        VIR_DOMAIN_EVENT_CALLBACK(virCheckpointEngineDeviceRemoved), engine, NULL);
    engine->qemuJobId = virConnectDomainQemuMonitorEventRegister(
        conn, NULL, "BLOCK_JOB_COMPLETED", virCheckpointEngineQemuJob, engine, NULL, 0);
    if (engine->lifecycleId < 0 || engine->blockJobId < 0 || engine->jobId < 0 ||
        engine->deviceId < 0 || engine->qemuJobId < 0 ||
        virConnectRegisterCloseCallback(conn, virCheckpointEngineClosed, engine, NULL) <
            0) {
        virCheckpointDomainSetError(error);
        virCheckpointEngineDropConnection(engine);
        return FALSE;
    }
    if (!virCheckpointEngineMayServe(engine, conn, error)) {
        virCheckpointEngineDropConnection(engine);
        return FALSE;
    }
    virCheckpointBackupEventsMissed(engine);
    virCheckpointMirrorEventsMissed(engine);
    virCheckpointHeirsEventsMissed();
    g_mutex_lock(&engine->lock);
    g_hash_table_remove_all(engine->settled);
    g_mutex_unlock(&engine->lock);
    return TRUE;
}

gboolean
virCheckpointEngineWatch(virCheckpointEngine *engine, GError **error)
{
    gboolean opened = FALSE;
    gboolean ok;

    g_mutex_lock(&engine->connectLock);
    if (engine->conn && virConnectIsAlive(engine->conn) != 1)
        virCheckpointEngineDropConnection(engine);
    if (!engine->conn)
        opened = virCheckpointEngineOpenConnection(engine, error);
    ok = engine->conn != NULL;
    g_mutex_unlock(&engine->connectLock);
    if (opened) {
        g_info("connected to %s", engine->uri);
        virCheckpointEngineSettleAll(engine);
    }
    return ok;
}

/* Libvirt prints its errors to stderr otherwise; ours go where they are looked at. */
static void
virCheckpointEngineIgnoreError(void *opaque, virErrorPtr error)
{
}

virCheckpointEngine *
virCheckpointEngineNew(const virCheckpointEngineConfig *config, GError **error)
{
    g_autoptr(GError) unreachable = NULL;
    virCheckpointEngine *engine;

    virSetErrorFunc(NULL, virCheckpointEngineIgnoreError);
    engine = g_new0(virCheckpointEngine, 1);
    engine->uri = g_strdup(config->uri);
    engine->overlayDir = g_strdup(config->overlayDir);
    engine->sink = g_atomic_rc_box_new0(virCheckpointEngineSink);
    engine->sink->blockJob = config->blockJob;
    engine->sink->data = config->data;
    engine->store = virCheckpointStoreNew(config->stateDir);
    engine->lifecycleId = -1;
    engine->blockJobId = -1;
    engine->jobId = -1;
    engine->deviceId = -1;
    engine->qemuJobId = -1;
    g_mutex_init(&engine->mirrorLock);
    g_mutex_init(&engine->connectLock);
    g_mutex_init(&engine->lock);
    g_cond_init(&engine->changed);
    engine->mirrors = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    engine->dialects = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    engine->settled = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    virCheckpointRetryInit(engine);
    virCheckpointStartingInit(engine);
    engine->backups = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                            virCheckpointBackupEndFree);
    engine->pool =
        g_thread_pool_new(virCheckpointEngineRunTask, engine, -1, FALSE, NULL);
    if (!virCheckpointMirrorInit(engine, error)) {
        virCheckpointEngineFree(engine);
        return NULL;
    }
    if (virCheckpointEngineWatch(engine, &unreachable))
        return engine;
    g_assert(unreachable);
    if (unreachable->domain == VIR_CHECKPOINT_ERROR) {
        g_propagate_error(error, g_steal_pointer(&unreachable));
        virCheckpointEngineFree(engine);
        return NULL;
    }
    g_warning("libvirt does not answer yet: %s", unreachable->message);
    virCheckpointEngineReconnect(engine);
    return engine;
}

void
virCheckpointEngineFree(virCheckpointEngine *engine)
{
    if (!engine)
        return;
    g_mutex_lock(&engine->lock);
    engine->stopping = TRUE;
    g_cond_broadcast(&engine->changed);
    g_mutex_unlock(&engine->lock);
    virCheckpointMirrorStop(engine);
    g_thread_pool_free(engine->pool, FALSE, TRUE);
    virCheckpointRetryFini(engine);
    virCheckpointStartingFini(engine);
    virCheckpointMirrorFini(engine);
    virCheckpointEngineDropConnection(engine);
    virCheckpointEngineCloseIdle(engine);
    virCheckpointStoreFree(engine->store);
    engine->sink->blockJob = NULL; /* events under way reach nobody */
    g_atomic_rc_box_release(engine->sink);
    g_hash_table_unref(engine->settled);
    g_hash_table_unref(engine->backups);
    g_hash_table_unref(engine->mirrors);
    g_hash_table_unref(engine->dialects);
    g_cond_clear(&engine->changed);
    g_mutex_clear(&engine->lock);
    g_mutex_clear(&engine->connectLock);
    g_mutex_clear(&engine->mirrorLock);
    g_free(engine->overlayDir);
    g_free(engine->host);
    g_free(engine->uri);
    g_free(engine);
}

typedef struct virCheckpointEngineEmission {
    virCheckpointEngineSink *sink;
    gchar *uuid;
    gchar *name;
    gchar *target;
    gchar *source;
    virCheckpointEngineEvent event;
} virCheckpointEngineEmission;

static void
virCheckpointEngineEmissionFree(gpointer data)
{
    virCheckpointEngineEmission *emission = data;

    g_atomic_rc_box_release(emission->sink);
    g_free(emission->uuid);
    g_free(emission->name);
    g_free(emission->target);
    g_free(emission->source);
    g_free(emission);
}

static gboolean
virCheckpointEngineEmitNow(gpointer data)
{
    virCheckpointEngineEmission *emission = data;

    if (emission->sink->blockJob)
        emission->sink->blockJob(&emission->event, emission->sink->data);
    return G_SOURCE_REMOVE;
}

void
virCheckpointEngineEmitBlockJob(virCheckpointEngine *engine,
                                const gchar *uuid,
                                const gchar *target,
                                const gchar *source,
                                gint type,
                                gint status)
{
    virCheckpointEngineEmission *emission;
    virConnectPtr conn = NULL;
    virDomainPtr domain = NULL;
    g_autoptr(GSource) idle = NULL;

    emission = g_new0(virCheckpointEngineEmission, 1);
    emission->sink = g_atomic_rc_box_acquire(engine->sink);
    emission->uuid = g_strdup(uuid);
    emission->target = g_strdup(target);
    emission->source = g_strdup(source);
    emission->event.id = -1;
    if ((conn = virCheckpointEngineConnect(engine, NULL)))
        domain = virDomainLookupByUUIDString(conn, uuid);
    if (domain) {
        emission->name = g_strdup(virDomainGetName(domain));
        emission->event.id = (gint)virDomainGetID(domain);
        virDomainFree(domain);
    }
    virCheckpointEngineDisconnect(engine, conn);
    emission->event.uuid = emission->uuid;
    emission->event.name = emission->name ? emission->name : "";
    emission->event.target = emission->target;
    emission->event.source = emission->source;
    emission->event.type = type;
    emission->event.status = status;
    /* Not g_main_context_invoke(): that may call back on this thread. */
    idle = g_idle_source_new();
    g_source_set_priority(idle, G_PRIORITY_DEFAULT);
    g_source_set_callback(idle, virCheckpointEngineEmitNow, emission,
                          virCheckpointEngineEmissionFree);
    g_source_attach(idle, NULL);
}
