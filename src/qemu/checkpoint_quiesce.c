/*
 * checkpoint_quiesce.c: a guest's file systems, still for a moment
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Theory: a guest that stays frozen hangs, so who freezes must thaw, whatever happens
 * in between, our death included.  A file in the domain's folder says that a freeze was
 * asked for; it is there before the guest agent is asked and goes after the thaw.
 * Whoever settles the domain and finds it thaws: a thaw too many does nothing.  A guest
 * that is off is not frozen anymore.  Libvirt that was just started has no agent yet.
 */

#include "config.h"

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <sys/stat.h>
#include <time.h>

#include "checkpoint_error.h"
#include "checkpoint_fault.h"
#include "checkpoint_file.h"
#include "checkpoint_quiesce.h"

#define MARK "frozen"

/** An agent that did not answer for so long is not asked any more. */
#define PATIENCE_SEC 600

static void
virCheckpointQuiesceForget(virCheckpointStoreDomain *store)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, MARK, NULL);
    g_autoptr(GError) error = NULL;

    if (path && !virCheckpointFileRemove(path, &error))
        g_warning("%s", error->message);
}

/*
 * Libvirt waits for ever for an agent that was there once and says nothing: that would
 * hold up everybody who wants something of the domain.  A ping has a limit.
 */
gboolean
virCheckpointQuiesceAsk(virCheckpointDomainView *view, GError **error)
{
    g_autofree char *reply =
        virDomainQemuAgentCommand(view->domain, "{\"execute\":\"guest-ping\"}",
                                  VIR_DOMAIN_QEMU_AGENT_COMMAND_DEFAULT, 0);

    return reply || virCheckpointDomainSetError(error);
}

gboolean
virCheckpointQuiesceFreeze(virCheckpointStoreDomain *store,
                           virCheckpointDomainView *view,
                           GError **error)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, MARK, error);

    if (!path || !virCheckpointQuiesceAsk(view, error) ||
        !virCheckpointFaultPoint("quiesce/before-mark", error) ||
        !virCheckpointFileWrite(path, "", error) ||
        !virCheckpointFaultPoint("quiesce/marked", error))
        return FALSE;
    if (virDomainFSFreeze(view->domain, NULL, 0, 0) >= 0) {
        if (virCheckpointFaultPoint("quiesce/frozen", error))
            return TRUE;
    } else {
        virCheckpointDomainSetError(error);
    }
    /* The agent may do late what it was asked for, or have done half of it. */
    if (virCheckpointQuiesceAsk(view, NULL) &&
        (virDomainFSThaw(view->domain, NULL, 0, 0) >= 0 ||
         virGetLastErrorCode() != VIR_ERR_AGENT_UNRESPONSIVE))
        virCheckpointQuiesceForget(store);
    return FALSE;
}

gboolean
virCheckpointQuiesceThaw(virCheckpointStoreDomain *store, virCheckpointDomainView *view)
{
    g_autoptr(GError) error = NULL;

    if (virCheckpointQuiesceAsk(view, &error)) {
        if (virDomainFSThaw(view->domain, NULL, 0, 0) >= 0) {
            virCheckpointQuiesceForget(store);
            return TRUE;
        }
        virCheckpointDomainSetError(&error);
    }
    g_warning("domain %s (%s): file systems may stay frozen: %s", view->name,
              view->uuid, error->message);
    return FALSE;
}

gboolean
virCheckpointQuiesceRecover(virCheckpointStoreDomain *store,
                            virCheckpointDomainView *view)
{
    g_autofree gchar *path = virCheckpointStoreDomainPath(store, MARK, NULL);
    struct stat mark;

    if (!path || stat(path, &mark) < 0)
        return TRUE;
    if (view->running) {
        if (virCheckpointQuiesceThaw(store, view))
            return TRUE;
        /* Without an agent nobody has frozen it. */
        if (virGetLastErrorCode() != VIR_ERR_ARGUMENT_UNSUPPORTED &&
            time(NULL) - mark.st_mtime < PATIENCE_SEC)
            return FALSE;
    }
    virCheckpointQuiesceForget(store);
    return TRUE;
}
