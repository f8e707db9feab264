/*
 * dispatchfake.c: a session, a libvirt and an engine that do what a test says
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Linked in place of the session and the engine: the dispatch runs with its real
 * threads, and a test waits for packets, never for time.
 */

#include "config.h"

#include "dispatchfake.h"

#include "checkpoint_error.h"
#include "checkpoint_heal.h"
#include "checkpoint_health.h"

#include <string.h>

#define DOMAIN_XML                                                                     \
    "<domain><devices>"                                                                \
    "<disk><source file='/a'/><target dev='vda'/><alias name='virtio-disk0'/></disk>"  \
    "<disk><source file='/b'/><target dev='vdb'/><alias name='virtio-disk1'/></disk>"  \
    "</devices></domain>"

/* The session. */

virCheckpointClient *
fakeClientNew(void)
{
    virCheckpointClient *client = g_new0(virCheckpointClient, 1);

    client->refs = 1;
    g_mutex_init(&client->lock);
    g_cond_init(&client->changed);
    client->sent =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointFrameFree);
    client->forwarded =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointFrameFree);
    client->asked = g_array_new(FALSE, FALSE, sizeof(gint));
    return client;
}

virCheckpointClient *
virCheckpointClientRef(virCheckpointClient *client)
{
    g_atomic_int_inc(&client->refs);
    return client;
}

void
virCheckpointClientUnref(virCheckpointClient *client)
{
    if (!g_atomic_int_dec_and_test(&client->refs))
        return;
    if (client->freeData)
        client->freeData(client->data);
    if (client->tag && client->freeTag)
        client->freeTag(client->tag);
    g_ptr_array_unref(client->sent);
    g_ptr_array_unref(client->forwarded);
    g_array_unref(client->asked);
    g_mutex_clear(&client->lock);
    g_cond_clear(&client->changed);
    g_free(client);
}

gboolean
virCheckpointClientIsReadOnly(virCheckpointClient *client)
{
    return client->readOnly;
}

void
virCheckpointClientSetData(virCheckpointClient *client,
                           gpointer data,
                           GDestroyNotify free)
{
    client->data = data;
    client->freeData = free;
}

gpointer
virCheckpointClientGetData(virCheckpointClient *client)
{
    return client->data;
}

void
virCheckpointClientWatch(virCheckpointClient *client,
                         const virCheckpointFrame *frame,
                         gpointer tag,
                         GDestroyNotify free)
{
    if (client->tag && client->freeTag)
        client->freeTag(client->tag);
    client->watched = frame;
    client->tag = tag;
    client->freeTag = free;
}

static void
fakeAdd(virCheckpointClient *client, GPtrArray *array, virCheckpointFrame *frame)
{
    g_mutex_lock(&client->lock);
    g_ptr_array_add(array, frame);
    g_mutex_unlock(&client->lock);
    g_main_context_wakeup(NULL);
}

void
virCheckpointClientSend(virCheckpointClient *client, virCheckpointFrame *frame)
{
    fakeAdd(client, client->sent, frame);
}

void
virCheckpointClientForward(virCheckpointClient *client, virCheckpointFrame *frame)
{
    fakeAdd(client, client->forwarded, frame);
}

static virCheckpointFrame *
fakeWait(virCheckpointClient *client, GPtrArray *array, guint count)
{
    virCheckpointFrame *frame = NULL;
    gboolean there = FALSE;

    while (!there) {
        g_mutex_lock(&client->lock);
        there = array->len >= count;
        if (there)
            frame = g_ptr_array_index(array, count - 1);
        g_mutex_unlock(&client->lock);
        if (!there)
            g_main_context_iteration(NULL, TRUE);
    }
    return frame;
}

virCheckpointFrame *
fakeWaitSent(virCheckpointClient *client, guint count)
{
    return fakeWait(client, client->sent, count);
}

virCheckpointFrame *
fakeWaitForwarded(virCheckpointClient *client, guint count)
{
    return fakeWait(client, client->forwarded, count);
}

virCheckpointFrame *
fakeCall(gint procedure, guint serial, GBytes *bytes)
{
    virCheckpointFrame *frame = virCheckpointFrameNew(
        VIR_CHECKPOINT_PROGRAM_REMOTE, procedure, VIR_CHECKPOINT_FRAME_CALL, serial,
        VIR_CHECKPOINT_FRAME_OK, g_bytes_get_data(bytes, NULL),
        g_bytes_get_size(bytes));

    g_bytes_unref(bytes);
    return frame;
}

/* Its libvirt. */

static virCheckpointFrame *
fakeAnswer(gint procedure, gint status, GBytes *bytes)
{
    virCheckpointFrame *frame = virCheckpointFrameNew(
        VIR_CHECKPOINT_PROGRAM_REMOTE, procedure, VIR_CHECKPOINT_FRAME_REPLY,
        0x80000007, status, bytes ? g_bytes_get_data(bytes, NULL) : NULL,
        bytes ? g_bytes_get_size(bytes) : 0);

    if (bytes)
        g_bytes_unref(bytes);
    return frame;
}

static virCheckpointFrame *
fakeRefuse(gint procedure, gint code, gint domain, const gchar *detail)
{
    gchar *text = (gchar *)detail;
    virCheckpointProtoError error = {
        .code = code,
        .domain = domain,
        .message = &text,
        .level = 2,
        .str2 = &text,
        .int1 = -1,
        .int2 = -1,
    };

    return fakeAnswer(procedure, VIR_CHECKPOINT_FRAME_ERROR,
                      virCheckpointWireEncode(virCheckpointProtoError, &error));
}

static virCheckpointFrame *
fakeLookup(virCheckpointClient *client, gint procedure)
{
    virCheckpointProtoDomainArgs reply = {
        .dom = {.name = (gchar *)"now", .id = client->off ? -1 : 7}};

    virCheckpointWireUuidParse(FAKE_UUID, reply.dom.uuid);
    return fakeAnswer(procedure, VIR_CHECKPOINT_FRAME_OK,
                      virCheckpointWireEncode(virCheckpointProtoDomainArgs, &reply));
}

static virCheckpointFrame *
fakeList(gint procedure, const guint8 *payload, gsize length)
{
    g_auto(virCheckpointProtoListArgs) args = {0};
    virCheckpointProtoCheckpoint two[] = {
        {.name = (gchar *)FAKE_BACKUP_NAME, .dom = {.name = (gchar *)"now", .id = 7}},
        {.name = (gchar *)"theirs", .dom = {.name = (gchar *)"now", .id = 7}}};
    virCheckpointProtoList list = {.ret = 2};

    g_assert_true(
        virCheckpointWireDecode(virCheckpointProtoListArgs, payload, length, &args));
    list.checkpoints.checkpoints_val = two;
    list.checkpoints.checkpoints_len = args.need_results ? 2 : 0;
    return fakeAnswer(procedure, VIR_CHECKPOINT_FRAME_OK,
                      virCheckpointWireEncode(virCheckpointProtoList, &list));
}

/** The domains 1 to 4; libvirt has checkpoints of 2, the engine of FAKE_UUID's. */
static virCheckpointFrame *
fakeDomains(gint procedure, const guint8 *payload, gsize length)
{
    g_auto(virCheckpointProtoDomainsArgs) args = {0};
    virCheckpointProtoDomain each[4] = {{.name = (gchar *)"d1"},
                                        {.name = (gchar *)"d2"},
                                        {.name = (gchar *)"d3"},
                                        {.name = (gchar *)"d4"}};
    virCheckpointProtoDomains reply = {.ret = 4};
    gsize i;

    g_assert_true(
        virCheckpointWireDecode(virCheckpointProtoDomainsArgs, payload, length, &args));
    g_assert_cmpint(args.need_results, ==, 1);
    for (i = 0; i < G_N_ELEMENTS(each); i++)
        each[i].uuid[0] = (gchar)i;
    virCheckpointWireUuidParse(FAKE_UUID, each[2].uuid);
    reply.domains.domains_val = each;
    if (args.flags & VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT) {
        reply.domains.domains_val++;
        reply.ret = 1;
    }
    reply.domains.domains_len = reply.ret;
    return fakeAnswer(procedure, VIR_CHECKPOINT_FRAME_OK,
                      virCheckpointWireEncode(virCheckpointProtoDomains, &reply));
}

/** It begins backups with a checkpoint, and none since a checkpoint. */
static virCheckpointFrame *
fakeBackup(gint procedure, const guint8 *payload, gsize length)
{
    g_auto(virCheckpointProtoBackup) args = {0};

    g_assert_true(
        virCheckpointWireDecode(virCheckpointProtoBackup, payload, length, &args));
    if (g_str_equal(args.xml, "<x/>"))
        return fakeRefuse(procedure, VIR_ERR_XML_ERROR, VIR_CHECKPOINT_FROM_XML,
                          "expecting another root element, not 'x'");
    if (args.checkpoint)
        return fakeAnswer(procedure, VIR_CHECKPOINT_FRAME_OK, NULL);
    return fakeRefuse(procedure, VIR_ERR_NO_DOMAIN_CHECKPOINT, VIR_CHECKPOINT_FROM_QEMU,
                      "Checkpoint '" FAKE_BACKUP_NAME "' not found");
}

static virCheckpointFrame *
fakeBackupXml(gint procedure)
{
    virCheckpointProtoText xml = {
        .text = (gchar *)"<domainbackup><incremental>" FAKE_BACKUP_NAME
                         "</incremental></domainbackup>"};

    return fakeAnswer(procedure, VIR_CHECKPOINT_FRAME_OK,
                      virCheckpointWireEncode(virCheckpointProtoText, &xml));
}

/** A call that libvirt authorises; what it then says to the harmless form of it. */
static virCheckpointFrame *
fakeAuthorised(gint procedure)
{
    switch (procedure) {
    case VIR_CHECKPOINT_PROC_CHECKPOINT_CREATE_XML:
    case VIR_CHECKPOINT_PROC_BLOCK_COPY:
    case VIR_CHECKPOINT_PROC_SNAPSHOT_CREATE_XML:
        return fakeRefuse(procedure, VIR_ERR_XML_ERROR, VIR_CHECKPOINT_FROM_XML,
                          "expecting another root element, not 'x'");
    case VIR_CHECKPOINT_PROC_CHECKPOINT_GET_XML_DESC:
    case VIR_CHECKPOINT_PROC_CHECKPOINT_LIST_CHILDREN:
    case VIR_CHECKPOINT_PROC_CHECKPOINT_LOOKUP:
    case VIR_CHECKPOINT_PROC_CHECKPOINT_GET_PARENT:
    case VIR_CHECKPOINT_PROC_CHECKPOINT_DELETE:
        return fakeRefuse(procedure, VIR_ERR_NO_DOMAIN_CHECKPOINT,
                          VIR_CHECKPOINT_FROM_QEMU,
                          "no domain checkpoint with matching name '/'");
    default:
        return fakeRefuse(procedure, VIR_ERR_INVALID_ARG, VIR_CHECKPOINT_FROM_QEMU,
                          "disk '' not found in domain");
    }
}

virCheckpointFrame *
virCheckpointClientAsk(virCheckpointClient *client,
                       guint32 program,
                       gint32 procedure,
                       const guint8 *payload,
                       gsize length)
{
    virCheckpointProtoText xml = {.text = (gchar *)DOMAIN_XML};

    g_mutex_lock(&client->lock);
    g_array_append_val(client->asked, procedure);
    g_mutex_unlock(&client->lock);
    if (client->ended)
        return NULL;
    if (client->denied)
        return fakeRefuse(procedure, client->denied, VIR_CHECKPOINT_FROM_QEMU,
                          client->deniedText ? client->deniedText : "'QEMU' denied");
    if (program == VIR_CHECKPOINT_PROGRAM_QEMU)
        return fakeRefuse(procedure, VIR_ERR_INTERNAL_ERROR, VIR_CHECKPOINT_FROM_NONE,
                          "cannot parse json x: lexical error");
    switch (procedure) {
    case VIR_CHECKPOINT_PROC_DOMAIN_LOOKUP_BY_UUID:
        return fakeLookup(client, procedure);
    case VIR_CHECKPOINT_PROC_LIST_ALL_DOMAINS:
        return fakeDomains(procedure, payload, length);
    case VIR_CHECKPOINT_PROC_CHECKPOINT_LIST_ALL:
        return fakeList(procedure, payload, length);
    case VIR_CHECKPOINT_PROC_BACKUP_BEGIN:
        return fakeBackup(procedure, payload, length);
    case VIR_CHECKPOINT_PROC_BACKUP_GET_XML_DESC:
        return fakeBackupXml(procedure);
    case VIR_CHECKPOINT_PROC_DOMAIN_GET_XML_DESC:
        return fakeAnswer(procedure, VIR_CHECKPOINT_FRAME_OK,
                          virCheckpointWireEncode(virCheckpointProtoText, &xml));
    default:
        return fakeAuthorised(procedure);
    }
}

/* The engine. */

virCheckpointEngine *
fakeEngineNew(const gchar *names)
{
    virCheckpointEngine *engine = g_new0(virCheckpointEngine, 1);
    g_auto(GStrv) each = g_strsplit(names, " ", -1);
    gsize i;

    g_mutex_init(&engine->lock);
    g_cond_init(&engine->changed);
    engine->log = g_ptr_array_new_with_free_func(g_free);
    engine->names = g_ptr_array_new_with_free_func(g_free);
    for (i = 0; each[i]; i++) {
        if (*each[i])
            g_ptr_array_add(engine->names, g_strdup(each[i]));
    }
    return engine;
}

void
fakeEngineFree(virCheckpointEngine *engine)
{
    g_ptr_array_unref(engine->log);
    g_ptr_array_unref(engine->names);
    g_mutex_clear(&engine->lock);
    g_cond_clear(&engine->changed);
    g_free(engine);
}

gchar *
fakeEngineLog(virCheckpointEngine *engine)
{
    gchar *text;

    g_mutex_lock(&engine->lock);
    g_ptr_array_add(engine->log, NULL);
    text = g_strjoinv("|", (gchar **)engine->log->pdata);
    g_ptr_array_set_size(engine->log, 0);
    g_mutex_unlock(&engine->lock);
    return text;
}

static gboolean G_GNUC_PRINTF(3, 4)
    fakeDid(virCheckpointEngine *engine, GError **error, const gchar *format, ...)
{
    gint failure;
    va_list args;

    va_start(args, format);
    g_mutex_lock(&engine->lock);
    g_ptr_array_add(engine->log, g_strdup_vprintf(format, args));
    failure = engine->failure;
    g_mutex_unlock(&engine->lock);
    va_end(args);
    if (failure == 0)
        return TRUE;
    g_set_error(error, VIR_CHECKPOINT_ERROR, failure, "told to fail");
    return FALSE;
}

gboolean
virCheckpointEngineCreate(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *xml,
                          guint flags,
                          gchar **name,
                          GError **error)
{
    g_mutex_lock(&engine->lock);
    while (engine->hold)
        g_cond_wait(&engine->changed, &engine->lock);
    g_mutex_unlock(&engine->lock);
    if (!fakeDid(engine, error, "create %s %s %u", uuid, xml, flags))
        return FALSE;
    *name = g_strdup("made");
    return TRUE;
}

gboolean
virCheckpointEngineTracks(virCheckpointEngine *engine, const gchar *uuid)
{
    return engine->disk || engine->names->len > 0;
}

gboolean
virCheckpointEngineMustSettle(virCheckpointEngine *engine, const gchar *uuid)
{
    return TRUE;
}

gboolean
virCheckpointEngineGiveUp(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error)
{
    return fakeDid(engine, error, "give up");
}

gboolean
virCheckpointEngineAlone(virCheckpointEngine *engine,
                         const gchar *uuid,
                         void (*func)(gpointer data),
                         gpointer data)
{
    return FALSE; /* test_pulls.py has the other answer */
}

void
virCheckpointEngineBeforeJob(virCheckpointEngine *engine, const gchar *uuid)
{
    fakeDid(engine, NULL, "before job");
}

virCheckpointBackupResult
virCheckpointEngineBackupBegin(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *xml,
                               const gchar *checkpointXml,
                               virCheckpointEngineBackupFunc func,
                               gpointer data,
                               virCheckpointBackupRecord **names,
                               GError **error)
{
    if (!fakeDid(engine, error, "backup %s %s", xml, checkpointXml))
        return VIR_CHECKPOINT_BACKUP_FAILED;
    if (strstr(xml, "theirs"))
        return VIR_CHECKPOINT_BACKUP_NOT_OURS;
    *names = virCheckpointEngineBackupNames(engine, uuid);
    func("<domainbackup/>", checkpointXml ? "<domaincheckpoint/>" : NULL, data);
    return VIR_CHECKPOINT_BACKUP_ANSWERED;
}

virCheckpointBackupRecord *
virCheckpointEngineBackupNames(virCheckpointEngine *engine, const gchar *uuid)
{
    virCheckpointBackupRecord *names = virCheckpointBackupRecordNew();

    virCheckpointBackupRecordAddName(names, FAKE_BACKUP_NAME, "a");
    return names;
}

gboolean
virCheckpointEngineDelete(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *name,
                          guint flags,
                          GError **error)
{
    return fakeDid(engine, error, "delete %s %u", name, flags);
}

gboolean
virCheckpointEngineGetXml(virCheckpointEngine *engine,
                          const gchar *uuid,
                          const gchar *name,
                          guint flags,
                          gchar **xml,
                          GError **error)
{
    if (!fakeDid(engine, error, "xml %s %u", name, flags))
        return FALSE;
    *xml = g_strdup("<domaincheckpoint/>");
    return TRUE;
}

void
virCheckpointEngineEntryFree(virCheckpointEngineEntry *entry)
{
    g_free(entry->name);
    g_free(entry->parent);
    g_free(entry);
}

GPtrArray *
virCheckpointEngineList(virCheckpointEngine *engine, const gchar *uuid, GError **error)
{
    g_autoptr(GPtrArray) entries =
        g_ptr_array_new_with_free_func((GDestroyNotify)virCheckpointEngineEntryFree);
    guint i;

    for (i = 0; g_str_equal(uuid, FAKE_UUID) && i < engine->names->len; i++) {
        g_auto(GStrv) parts = g_strsplit(g_ptr_array_index(engine->names, i), "<", 2);
        virCheckpointEngineEntry *entry = g_new0(virCheckpointEngineEntry, 1);

        entry->name = g_strdup(parts[0]);
        entry->parent = g_strdup(parts[1]);
        g_ptr_array_add(entries, entry);
    }
    return g_steal_pointer(&entries);
}

gboolean
virCheckpointEngineHas(virCheckpointEngine *engine,
                       const gchar *uuid,
                       const gchar *name)
{
    g_autoptr(GPtrArray) entries = virCheckpointEngineList(engine, uuid, NULL);
    guint i;

    for (i = 0; i < entries->len; i++) {
        const virCheckpointEngineEntry *entry = g_ptr_array_index(entries, i);

        if (g_str_equal(entry->name, name))
            return TRUE;
    }
    return FALSE;
}

virCheckpointJson *
virCheckpointEngineCheck(virCheckpointEngine *engine, const gchar *uuid, GError **error)
{
    return fakeDid(engine, error, "check %s", uuid)
               ? virCheckpointJsonBuild("s:health", "healthy", NULL)
               : NULL;
}

virCheckpointJson *
virCheckpointEngineRepair(virCheckpointEngine *engine,
                          const gchar *uuid,
                          GError **error)
{
    return fakeDid(engine, error, "repair %s", uuid) ? virCheckpointJsonNewObject()
                                                     : NULL;
}

gboolean
virCheckpointEngineHeal(virCheckpointEngine *engine,
                        const gchar *uuid,
                        const virCheckpointHealRequest *request,
                        GError **error)
{
    return fakeDid(engine, error, "heal %s %s %s %s", uuid, request->disk,
                   request->against, request->checkpoint ? request->checkpoint : "-");
}

virCheckpointJson *
virCheckpointEngineHealQuery(virCheckpointEngine *engine,
                             const gchar *uuid,
                             const gchar *disk,
                             GError **error)
{
    return fakeDid(engine, error, "query-heal %s %s", uuid, disk)
               ? virCheckpointJsonBuild("s:disk", disk, NULL)
               : NULL;
}

gboolean
virCheckpointEngineHealCancel(virCheckpointEngine *engine,
                              const gchar *uuid,
                              const gchar *disk,
                              GError **error)
{
    return fakeDid(engine, error, "cancel-heal %s %s", uuid, disk);
}

gboolean
virCheckpointEngineDrop(virCheckpointEngine *engine, const gchar *uuid, GError **error)
{
    return fakeDid(engine, error, "drop %s", uuid);
}

void
virCheckpointEngineLeave(virCheckpointEngine *engine, const gchar *uuid)
{
    fakeDid(engine, NULL, "leave %s", uuid);
}

gboolean
virCheckpointEngineIsElsewhere(virCheckpointEngine *engine, const gchar *uuid)
{
    return FALSE;
}

gboolean
virCheckpointEngineSettleHere(virCheckpointEngine *engine,
                              const gchar *uuid,
                              GError **error)
{
    return fakeDid(engine, error, "settle %s", uuid);
}

void
virCheckpointEngineStartComes(virCheckpointEngine *engine, const gchar *uuid)
{
    fakeDid(engine, NULL, "start comes");
}

void
virCheckpointEngineStartGoes(virCheckpointEngine *engine, const gchar *uuid)
{
    fakeDid(engine, NULL, "start goes");
}

void
virCheckpointEngineStartRefused(virCheckpointEngine *engine, const gchar *uuid)
{
    fakeDid(engine, NULL, "start refused");
}

gboolean
virCheckpointEngineMayStart(virCheckpointEngine *engine,
                            const gchar *uuid,
                            GError **error)
{
    return TRUE;
}

virCheckpointJson *
virCheckpointEngineMirrorError(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *disk,
                               GError **error)
{
    fakeDid(engine, error, "job-error %s", disk);
    return virCheckpointJsonNewObject();
}

gboolean
virCheckpointEngineMirrorStart(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const virCheckpointMirrorRequest *request,
                               GError **error)
{
    return fakeDid(engine, error,
                   "mirror %s bitmap=%s checkpoint=%s finish=%d%s bandwidth=%lu "
                   "granularity=%u buf=%lu flags=%u",
                   request->disk, request->bitmap, request->checkpoint, request->finish,
                   request->verify ? " verify" : "", request->bandwidthBytes,
                   request->granularity, request->bufSize, request->flags);
}

static virCheckpointMirrorAnswer
fakeMirror(virCheckpointEngine *engine, gboolean good)
{
    if (engine->gone)
        return VIR_CHECKPOINT_MIRROR_NONE;
    return good ? VIR_CHECKPOINT_MIRROR_OURS : VIR_CHECKPOINT_MIRROR_ERROR;
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorInfo(virCheckpointEngine *engine,
                              const gchar *uuid,
                              const gchar *disk,
                              virDomainBlockJobInfo *info,
                              GError **error)
{
    info->type = VIR_DOMAIN_BLOCK_JOB_TYPE_COPY;
    info->bandwidth = 1048577;
    info->cur = 5;
    info->end = 9;
    return fakeMirror(engine, fakeDid(engine, error, "info %s", disk));
}

static gboolean
fakeEmit(gpointer data)
{
    virCheckpointEngine *engine = data;
    const virCheckpointEngineEvent event = {
        .uuid = FAKE_UUID,
        .name = "now",
        .id = 7,
        .target = "vda",
        .source = "/a",
        .type = VIR_DOMAIN_BLOCK_JOB_TYPE_COPY,
        .status = VIR_DOMAIN_BLOCK_JOB_CANCELED,
    };

    virCheckpointDispatchBlockJob(engine->dispatch, &event);
    return G_SOURCE_REMOVE;
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorAbort(virCheckpointEngine *engine,
                               const gchar *uuid,
                               const gchar *disk,
                               guint flags,
                               GError **error)
{
    if (engine->emits) {
        g_autoptr(GSource) source = g_idle_source_new();

        g_source_set_priority(source, G_PRIORITY_DEFAULT);
        g_source_set_callback(source, fakeEmit, engine, NULL);
        g_source_attach(source, NULL);
    }
    return fakeMirror(engine, fakeDid(engine, error, "abort %s %u", disk, flags));
}

virCheckpointMirrorAnswer
virCheckpointEngineMirrorSetSpeed(virCheckpointEngine *engine,
                                  const gchar *uuid,
                                  const gchar *disk,
                                  guint64 bandwidthBytes,
                                  GError **error)
{
    return fakeMirror(engine,
                      fakeDid(engine, error, "speed %s %lu", disk, bandwidthBytes));
}

gboolean
virCheckpointEngineHidesJob(virCheckpointEngine *engine,
                            const gchar *uuid,
                            const gchar *disk)
{
    return engine->disk && (g_str_equal(disk, "vda") || g_str_equal(disk, "/a"));
}

gboolean
virCheckpointEngineHasMirror(virCheckpointEngine *engine,
                             const gchar *uuid,
                             const gchar *disk)
{
    return engine->disk && (!disk || g_str_equal(disk, engine->disk));
}
