/*
 * virsh_blockcopy.c: our blockcopy, from words to exit status
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The only part of virsh that talks to libvirt.  Events are registered before the copy
 * starts, so that the end of a short one cannot be missed; they come in on a thread
 * that does nothing but run libvirt's event loop, while this one waits for them or for
 * the next poll.
 */

#include "config.h"

#include "virsh_blockcopy.h"

#include <errno.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint_error.h"
#include "checkpoint_file.h"
#include "checkpoint_json.h"
#include "virsh_job.h"

#define VIRSH_KEEPALIVE_INTERVAL 5
#define VIRSH_KEEPALIVE_COUNT 6
#define VIRSH_XML_MAX_BYTES ((gsize)10 * 1024 * 1024)

typedef struct {
    virConnectPtr conn;
    virDomainPtr dom;
    const gchar *path; /* borrowed from the plan; events look at it under lock */
    GThread *loop;
    gint quit; /* atomic: the loop ends after its next turn */
    int timer; /* wakes the loop up, or -1 */
    int callbacks[2];
    GMutex lock;
    GCond changed;
    gint status; /* under lock: of the last event, or -1 */
} virCheckpointVirshClient;

static volatile sig_atomic_t virCheckpointVirshInterrupted;

static void
virCheckpointVirshClientSignal(int number)
{
    virCheckpointVirshInterrupted = 1;
}

static void
virCheckpointVirshClientQuiet(void *opaque, virErrorPtr error)
{
    /* Errors are printed where they are handled. */
}

static void
virCheckpointVirshClientWake(int timer, void *opaque)
{
    virEventUpdateTimeout(timer, -1);
}

static gpointer
virCheckpointVirshClientLoop(gpointer data)
{
    virCheckpointVirshClient *client = data;

    while (!g_atomic_int_get(&client->quit) && virEventRunDefaultImpl() == 0)
        continue;
    return NULL;
}

static void
virCheckpointVirshClientEvent(virConnectPtr conn,
                              virDomainPtr dom,
                              const char *disk,
                              int type,
                              int status,
                              void *opaque)
{
    virCheckpointVirshClient *client = opaque;

    g_mutex_lock(&client->lock);
    if (type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY && g_strcmp0(disk, client->path) == 0) {
        client->status = status;
        g_cond_signal(&client->changed);
    }
    g_mutex_unlock(&client->lock);
}

/* Both kinds of event: one names the disk by its source, the other by its target, and
 * the user may have used either.  Returns whether both will come. */
static gboolean
virCheckpointVirshClientRegister(virCheckpointVirshClient *client)
{
    static const int kinds[] = {VIR_DOMAIN_EVENT_ID_BLOCK_JOB,
                                VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2};
    gboolean all = TRUE;
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(kinds); i++) {
        client->callbacks[i] = virConnectDomainEventRegisterAny(
            client->conn, client->dom, kinds[i],
            VIR_DOMAIN_EVENT_CALLBACK(virCheckpointVirshClientEvent), client, NULL);
        all = all && client->callbacks[i] >= 0;
    }
    virResetLastError();
    return all;
}

static gint
virCheckpointVirshClientInfo(gpointer opaque, virDomainBlockJobInfo *info)
{
    virCheckpointVirshClient *client = opaque;

    return virDomainGetBlockJobInfo(client->dom, client->path, info, 0);
}

static gint
virCheckpointVirshClientAbort(gpointer opaque, guint flags)
{
    virCheckpointVirshClient *client = opaque;

    return virDomainBlockJobAbort(client->dom, client->path, flags);
}

static gint
virCheckpointVirshClientWait(gpointer opaque, guint ms)
{
    virCheckpointVirshClient *client = opaque;
    gint64 end = g_get_monotonic_time() + (gint64)ms * 1000;
    gint status;

    g_mutex_lock(&client->lock);
    while (client->status < 0 && ms > 0 && !virCheckpointVirshInterrupted &&
           g_cond_wait_until(&client->changed, &client->lock, end))
        continue;
    status = client->status;
    g_mutex_unlock(&client->lock);
    return status;
}

static gint64
virCheckpointVirshClientNow(gpointer opaque)
{
    return g_get_monotonic_time() / 1000;
}

static gboolean
virCheckpointVirshClientStopped(gpointer opaque)
{
    return virCheckpointVirshInterrupted != 0;
}

static gchar *
virCheckpointVirshClientWhy(gpointer opaque)
{
    virCheckpointVirshClient *client = opaque;
    g_autoptr(virCheckpointJson) ask = virCheckpointJsonBuild(
        "s:execute", "virtcheckpoint-job-error", "a:arguments",
        virCheckpointJsonBuild("s:disk", client->path, NULL), NULL);
    g_autofree gchar *text = virCheckpointJsonFormat(ask);
    g_autoptr(virCheckpointJson) reply = NULL;
    char *answer = NULL;

    if (virDomainQemuMonitorCommand(client->dom, text, &answer, 0) < 0) {
        virResetLastError();
        return NULL;
    }
    reply = virCheckpointJsonParse(answer, -1, NULL);
    free(answer);
    return g_strdup(
        virCheckpointJsonString(virCheckpointJsonPath(reply, "return.message")));
}

static const virCheckpointVirshJobOps virCheckpointVirshClientOps = {
    .info = virCheckpointVirshClientInfo,
    .abort = virCheckpointVirshClientAbort,
    .event = virCheckpointVirshClientWait,
    .now = virCheckpointVirshClientNow,
    .interrupted = virCheckpointVirshClientStopped,
    .why = virCheckpointVirshClientWhy,
};

static gboolean
virCheckpointVirshClientKeepalive(virCheckpointVirshClient *client,
                                  const virCheckpointVirshArgs *args)
{
    gboolean asked = args->keepaliveInterval >= 0 || args->keepaliveCount >= 0;
    gint interval = VIRSH_KEEPALIVE_INTERVAL;
    gint count = VIRSH_KEEPALIVE_COUNT;

    if (args->keepaliveInterval >= 0)
        interval = args->keepaliveInterval;
    if (args->keepaliveCount >= 0)
        count = args->keepaliveCount;
    if (interval == 0 ||
        virConnectSetKeepAlive(client->conn, interval, (guint)count) == 0 || !asked) {
        virResetLastError();
        return TRUE;
    }
    return FALSE;
}

static gboolean
virCheckpointVirshClientOpen(virCheckpointVirshClient *client,
                             const virCheckpointVirshArgs *args,
                             const gchar *uri,
                             const gchar *hint,
                             const virCheckpointVirshUi *ui)
{
    virSetErrorFunc(NULL, virCheckpointVirshClientQuiet);
    if (virEventRegisterDefaultImpl() < 0 ||
        (client->timer =
             virEventAddTimeout(-1, virCheckpointVirshClientWake, NULL, NULL)) < 0) {
        virCheckpointVirshUiLibvirtError(ui);
        return FALSE;
    }
    client->loop = g_thread_new("events", virCheckpointVirshClientLoop, client);
    client->conn = virConnectOpenAuth(uri, virConnectAuthPtrDefault,
                                      args->readonly ? VIR_CONNECT_RO : 0);
    if (!client->conn) {
        virCheckpointVirshUiError(ui, "failed to connect to the hypervisor");
        virCheckpointVirshUiLibvirtError(ui);
        if (hint)
            virCheckpointVirshUiError(ui, "%s", hint);
        return FALSE;
    }
    if (!virCheckpointVirshClientKeepalive(client, args)) {
        virCheckpointVirshUiError(
            ui, "Cannot setup keepalive on connection as requested, disconnecting");
        virCheckpointVirshUiLibvirtError(ui);
        return FALSE;
    }
    return TRUE;
}

static void
virCheckpointVirshClientClose(virCheckpointVirshClient *client)
{
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(client->callbacks); i++) {
        if (client->callbacks[i] >= 0)
            virConnectDomainEventDeregisterAny(client->conn, client->callbacks[i]);
    }
    if (client->dom)
        virDomainFree(client->dom);
    if (client->conn)
        virConnectClose(client->conn);
    if (client->loop) {
        g_atomic_int_set(&client->quit, 1);
        virEventUpdateTimeout(client->timer, 0);
        g_thread_join(client->loop);
    }
    if (client->timer >= 0)
        virEventRemoveTimeout(client->timer);
    g_mutex_clear(&client->lock);
    g_cond_clear(&client->changed);
}

/* As stock does: an id, else a UUID, else a name. */
static gboolean
virCheckpointVirshClientFind(virCheckpointVirshClient *client,
                             const gchar *domain,
                             const virCheckpointVirshUi *ui)
{
    guint64 id = 0;

    if (g_ascii_string_to_unsigned(domain, 10, 0, G_MAXINT, &id, NULL))
        client->dom = virDomainLookupByID(client->conn, (int)id);
    if (!client->dom && strlen(domain) == VIR_UUID_STRING_BUFLEN - 1)
        client->dom = virDomainLookupByUUIDString(client->conn, domain);
    if (!client->dom)
        client->dom = virDomainLookupByName(client->conn, domain);
    if (!client->dom && virGetLastErrorCode() == VIR_ERR_NO_DOMAIN)
        virResetLastError();
    if (client->dom)
        virResetLastError();
    else
        virCheckpointVirshUiError(ui, "failed to get domain '%s'", domain);
    return client->dom != NULL;
}

static gboolean
virCheckpointVirshClientReadXml(virCheckpointVirshPlan *plan,
                                const virCheckpointVirshUi *ui)
{
    g_autoptr(GError) error = NULL;
    g_autofree gchar *text = NULL;

    if (!plan->xmlFile)
        return TRUE;
    if (access(plan->xmlFile, R_OK) < 0) {
        virCheckpointVirshUiError(ui, "Failed to open file '%s': %s", plan->xmlFile,
                                  g_strerror(errno));
        return FALSE;
    }
    if (!(text = virCheckpointFileRead(plan->xmlFile, VIRSH_XML_MAX_BYTES, &error)) ||
        !virCheckpointVirshPlanSetXml(plan, text, &error)) {
        virCheckpointVirshUiError(ui, "%s", error->message);
        return FALSE;
    }
    return TRUE;
}

static void
virCheckpointVirshClientCatch(struct sigaction *before)
{
    struct sigaction action = {.sa_handler = virCheckpointVirshClientSignal};

    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, before);
}

static gboolean
virCheckpointVirshClientCopy(virCheckpointVirshClient *client,
                             virCheckpointVirshPlan *plan,
                             const virCheckpointVirshUi *ui)
{
    struct sigaction before;
    guint flags = plan->jobFlags;
    gboolean done = FALSE;

    if (!virCheckpointVirshClientFind(client, plan->domain, ui) ||
        !virCheckpointVirshClientReadXml(plan, ui))
        return FALSE;
    if (plan->printXml) {
        virCheckpointVirshUiPrint(ui, plan->xml);
        return TRUE;
    }
    g_mutex_lock(&client->lock);
    client->path = plan->path;
    g_mutex_unlock(&client->lock);
    if (flags & VIR_CHECKPOINT_VIRSH_JOB_WAIT) {
        virCheckpointVirshClientCatch(&before);
        if (virCheckpointVirshClientRegister(client))
            flags |= VIR_CHECKPOINT_VIRSH_JOB_EVENTS;
    }
    if (virDomainBlockCopy(client->dom, plan->path, plan->xml, plan->params,
                           plan->nparams, plan->flags) == 0)
        done = virCheckpointVirshJobFollow(&virCheckpointVirshClientOps, client, ui,
                                           plan->path, flags, plan->timeoutMs);
    if (flags & VIR_CHECKPOINT_VIRSH_JOB_WAIT)
        sigaction(SIGINT, &before, NULL);
    return done;
}

static void
virCheckpointVirshClientFailed(const virCheckpointVirshUi *ui)
{
    const gchar *message = virGetLastErrorMessage();
    gboolean unknown = virGetLastErrorCode() == VIR_ERR_ARGUMENT_UNSUPPORTED &&
                       message && strstr(message, "parameter '");

    virCheckpointVirshUiLibvirtError(ui);
    /* What stock libvirt says of a parameter that it does not know. */
    if (unknown)
        virCheckpointVirshUiError(
            ui, "--bitmap and --checkpoint need a connection through virtcheckpointd");
}

gboolean
cmdBlockCopy(const virCheckpointVirshArgs *args,
             const virCheckpointVirshOptions *options,
             const gchar *uri,
             const gchar *hint,
             const virCheckpointVirshUi *ui)
{
    virCheckpointVirshClient client = {
        .timer = -1, .callbacks = {-1, -1}, .status = -1};
    g_autoptr(virCheckpointVirshPlan) plan = NULL;
    g_autoptr(GError) error = NULL;
    gboolean done = FALSE;
    gint64 start;

    g_mutex_init(&client.lock);
    g_cond_init(&client.changed);
    if (virCheckpointVirshClientOpen(&client, args, uri, hint, ui)) {
        start = g_get_monotonic_time();
        if ((plan = virCheckpointVirshPlanNew(options, &error)))
            done = virCheckpointVirshClientCopy(&client, plan, ui);
        else
            virCheckpointVirshUiError(ui, "%s", error->message);
        if (!done)
            virCheckpointVirshClientFailed(ui);
        virCheckpointVirshUiDone(ui, g_get_monotonic_time() - start);
    }
    virCheckpointVirshClientClose(&client);
    return done;
}

gboolean
virCheckpointVirshAnswers(const gchar *uri, gboolean readonly)
{
    virConnectPtr conn;

    virSetErrorFunc(NULL, virCheckpointVirshClientQuiet);
    conn = virConnectOpenAuth(uri, virConnectAuthPtrDefault,
                              readonly ? VIR_CONNECT_RO : 0);
    virResetLastError();
    if (!conn)
        return FALSE;
    virConnectClose(conn);
    return TRUE;
}
